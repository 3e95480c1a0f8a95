//! What a tenant and its users may take.

use super::{
    Quota,
    problems::Mistake,
    values,
    walk::{Field, Section},
};

/// With less, a client waits so long for a read of 256 KiB that it may think the gateway dead.
const LEAST_BANDWIDTH: u64 = 64 << 10;
/// More than any machine has: beyond it the value is a slip.
const MOST_BANDWIDTH: u64 = 1 << 40;
/// As many as `[ssh] max_connections` may be.
const MOST_SESSIONS: u64 = 1_000_000;

/// Reads the limits of a tenant, or those of a user with the tenant's.
pub(super) fn read(section: &mut Section<'_>, tenants: Option<Quota>) -> Quota {
    let bandwidth = section.field("bandwidth").and_then(|field| {
        let bandwidth = field.parsed("bandwidth = \"20MiB/s\"", |text| {
            values::bandwidth(text, LEAST_BANDWIDTH, MOST_BANDWIDTH)
        })?;
        let whole = tenants.and_then(|tenant| tenant.bandwidth).filter(|whole| bandwidth > *whole);
        if whole.is_some() {
            beyond(&field, "this is more than the tenant's bandwidth".to_owned());
        }
        Some(bandwidth)
    });
    let max_sessions = section.field("max_sessions").and_then(|field| {
        let sessions = field.integer("max_sessions = 10", 1, MOST_SESSIONS)?;
        let sessions = usize::try_from(sessions).unwrap_or(usize::MAX);
        if let Some(whole) = tenants.and_then(|tenant| tenant.max_sessions).filter(|whole| sessions > *whole)
        {
            beyond(&field, format!("{sessions} is more than the tenant's max_sessions, which is {whole}"));
        }
        Some(sessions)
    });
    Quota { bandwidth, max_sessions }
}

fn beyond(field: &Field<'_>, wrong: String) {
    field.report(Mistake::new(wrong, "Lower it, or raise the tenant's."));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

    use std::num::NonZeroU64;

    use super::{
        super::tests::{minimal, mistakes, read},
        Quota,
    };

    #[test]
    fn quotas_are_read_and_their_mistakes_told() {
        let with = |tenants: &str, users: &str| {
            minimal()
                .replace("name = \"acme\"", &format!("name = \"acme\"\n{tenants}"))
                .replace("role =", &format!("{users}\nrole ="))
        };
        let text =
            with("bandwidth = \"20MiB/s\"\nmax_sessions = 9", "bandwidth = \"64 KiB/s\"\nmax_sessions = 9");
        let tenant = &read(&text).unwrap_or_else(|problems| panic!("{problems}")).tenants[0];
        let quota = |bandwidth, sessions| Quota {
            bandwidth: NonZeroU64::new(bandwidth),
            max_sessions: Some(sessions),
        };
        assert_eq!((tenant.quota, tenant.users[0].quota), (quota(20 << 20, 9), quota(64 << 10, 9)));
        assert_eq!(read(&minimal()).unwrap().tenants[0].quota, Quota::default());
        for (tenants, users, mistake) in [
            (
                "bandwidth = \"20MiB\"",
                "",
                "5:13: tenant[0].bandwidth: \"20MiB\" is no bandwidth. Write a size a second, in B, KiB, MiB, GiB or \
                 TiB, for example \"20MiB/s\".",
            ),
            (
                "bandwidth = \"20Mbit/s\"",
                "",
                "5:13: tenant[0].bandwidth: \"20Mbit/s\" is no bandwidth. Write a size a second, in B, KiB, MiB, GiB \
                 or TiB, for example \"20MiB/s\".",
            ),
            (
                "bandwidth = 20",
                "",
                "5:13: tenant[0].bandwidth: expected a string, found a whole number. Write for example bandwidth = \
                 \"20MiB/s\".",
            ),
            (
                "bandwidth = \"0B/s\"",
                "",
                "5:13: tenant[0].bandwidth: 0B/s is out of range. Write a bandwidth from 64KiB/s to 1TiB/s.",
            ),
            (
                "max_sessions = 0",
                "",
                "5:16: tenant[0].max_sessions: 0 is out of range. Write a number from 1 to 1000000.",
            ),
            (
                "bandwidth = \"1MiB/s\"",
                "bandwidth = \"1025KiB/s\"",
                "9:13: tenant[0].user[0].bandwidth: this is more than the tenant's bandwidth. Lower it, or raise the \
                 tenant's.",
            ),
            (
                "max_sessions = 3",
                "max_sessions = 4",
                "9:16: tenant[0].user[0].max_sessions: 4 is more than the tenant's max_sessions, which is 3. Lower it, \
                 or raise the tenant's.",
            ),
            (
                "max_sessions = 3",
                "max_sessions = \"2\"",
                "9:16: tenant[0].user[0].max_sessions: expected a whole number, found a string. Write for example \
                 max_sessions = 10.",
            ),
        ] {
            assert_eq!(mistakes(&with(tenants, users)), [format!("recgate.toml:{mistake}")]);
        }
    }
}
