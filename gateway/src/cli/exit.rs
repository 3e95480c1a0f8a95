//! How the command ends: scripts may rely on these numbers.

use std::{fmt, io};

/// An exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// What was asked for is done.
    Done = 0,
    /// It failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The configuration is wrong.
    Configuration = 3,
    /// No gateway is running, or it can't be reached.
    NotRunning = 4,
    /// A gateway is running where a stopped one is needed.
    Running = 5,
    /// The state is damaged.
    Damaged = 6,
}

impl Exit {
    /// Every code with what it means, as `--help` shows them.
    pub const ALL: [(Self, &str); 7] = [
        (Self::Done, "done"),
        (Self::Failed, "failed; the message says why"),
        (Self::Usage, "the command line is wrong"),
        (Self::Configuration, "the configuration is wrong"),
        (Self::NotRunning, "no gateway is running, or it can't be reached"),
        (Self::Running, "a gateway is running where a stopped one is needed"),
        (Self::Damaged, "the state is damaged"),
    ];

    /// The number.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The table for `--help`.
    pub fn help() -> String {
        let lines = Self::ALL.iter().map(|(exit, meaning)| format!("  {}  {meaning}", exit.code()));
        format!("Exit codes:\n{}", lines.collect::<Vec<_>>().join("\n"))
    }
}

/// Why a command didn't do what was asked for.
#[derive(Debug)]
pub struct Failure {
    /// How the process ends.
    pub exit: Exit,
    /// For standard error; empty where all has been said.
    pub message: String,
}

impl Failure {
    /// A failure with a message for people.
    pub fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, message: message.to_string() }
    }

    /// A failure with the code 1.
    pub fn failed(message: impl fmt::Display) -> Self {
        Self::new(Exit::Failed, message)
    }
}

/// What happens when standard output can't be written.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // Whoever read has seen enough, as in `recgate status | head -1`.
            io::ErrorKind::BrokenPipe => Self { exit: Exit::Done, message: String::new() },
            _ => Self::failed(format!("standard output can't be written: {error}")),
        }
    }
}
