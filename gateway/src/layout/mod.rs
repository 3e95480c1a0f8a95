//! Names, days and index rows: pure functions, no I/O, no clock.

/// How a tenant's names are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NameForm {
    /// Always with the sequence: `R201606060001170000.wav`.
    #[default]
    Long,
    /// Sequence 0000 without its digits: `R20160606000117.wav`.
    Short,
}

/// A tenant's time zone with its dated changes.
#[derive(Debug, Clone)]
pub struct TenantZone;
