//! The demo's folder: users with their passwords, the recordings, a configuration that `recgate serve` takes too.

use std::{
    fs::{self, DirBuilder},
    io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    thread,
};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use super::{
    calls::{self, CENTRES, Centre},
    tree,
};
use crate::{
    admin::ready::{ReadyUser, write_private},
    cli::Failure,
    identity::{self, Role},
};

/// What is remembered of a demo, in `demo.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Memory {
    made: DateTime<Utc>,
    recordings: usize,
    /// Of the archive.
    #[serde(default)]
    computed: u64,
    users: Vec<ReadyUser>,
}

/// A demo that is ready to be served.
#[derive(Debug)]
pub(super) struct Demo {
    pub config: PathBuf,
    pub users: Vec<ReadyUser>,
    pub recordings: usize,
    /// Recordings of the archive, which are computed.
    pub computed: u64,
}

/// The tenant whose recordings are computed.
pub(super) const ARCHIVE: &str = "archive";
const ARCHIVE_ID: u32 = 3;
/// Its days have so many recordings.
const PER_DAY: u64 = 5000;
/// A large archive has one day with so many.
const ON_LARGE_DAY: u64 = 100_000;

/// Makes the demo in a folder, or takes up the one that is there.
///
/// `computed` recordings make a third centre, the archive; `None` is as many as there were.
pub(super) fn set_up(
    dir: &Path,
    listen: SocketAddr,
    computed: Option<u64>,
    now: DateTime<Utc>,
) -> Result<Demo, Failure> {
    let failed =
        |error: io::Error| Failure::failed(format!("the demo can't be made in {}: {error}", dir.display()));
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    let memory_file = dir.join("demo.json");
    let memory: Memory = match fs::read(&memory_file) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
            Failure::failed(format!(
                "{} can't be read ({error}); choose another folder",
                memory_file.display()
            ))
        })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if fs::read_dir(dir).map_err(failed)?.next().is_some() {
                return Err(Failure::failed(format!(
                    "{} is not empty and holds no demo; choose an empty folder or a new one",
                    dir.display()
                )));
            }
            let computed = computed.unwrap_or(0);
            let recordings = make_trees(dir, now).map_err(failed)?;
            let memory = Memory { made: now, recordings, computed, users: users(computed > 0)? };
            // Last, so that a demo that was cut short isn't taken up.
            let json = serde_json::to_vec_pretty(&memory).map_err(Failure::failed)?;
            write_private(&memory_file, &json).map_err(failed)?;
            memory
        }
        Err(error) => return Err(failed(error)),
    };
    if computed.is_some_and(|computed| computed != memory.computed) {
        return Err(Failure::failed(format!(
            "the demo in {} has {} computed recordings, which stays so; choose another folder",
            dir.display(),
            memory.computed
        )));
    }
    let config = dir.join("recgate.toml");
    let text = config_text(dir, listen, &memory)?;
    write_private(&config, text.as_bytes()).map_err(failed)?;
    Ok(Demo { config, users: memory.users, recordings: memory.recordings, computed: memory.computed })
}

/// Both trees at once: the sound takes most of the time.
fn make_trees(dir: &Path, now: DateTime<Utc>) -> io::Result<usize> {
    let make =
        |centre: &'static Centre| tree::write(&dir.join(centre.name), centre, &calls::calls(centre, now));
    thread::scope(|scope| {
        let threads: Vec<_> = CENTRES.iter().map(|centre| scope.spawn(move || make(centre))).collect();
        let counts = threads.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err(io::Error::other("making the recordings panicked")))
        });
        counts.sum()
    })
}

fn users(with_archive: bool) -> Result<Vec<ReadyUser>, Failure> {
    let mut users = Vec::new();
    let centres = CENTRES.iter().map(|centre| centre.name).chain(with_archive.then_some(ARCHIVE));
    for centre in centres {
        for (user, role) in [(None, Role::Downloader), (Some("manager"), Role::Manager)] {
            users.push(ReadyUser {
                tenant: centre.to_owned(),
                user: user.map(str::to_owned),
                login: user.map_or_else(|| centre.to_owned(), |user| format!("{centre}/{user}")),
                password: password()?,
                role,
            });
        }
    }
    Ok(users)
}

/// 80 random bits, without characters that look alike and without any that a URL or a shell would quote.
fn password() -> Result<String, Failure> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(Failure::failed)?;
    let mut password = String::new();
    for (number, byte) in bytes.iter().enumerate() {
        if number > 0 && number % 4 == 0 {
            password.push('-');
        }
        let letter = LETTERS.get(usize::from(byte % 32)).copied().unwrap_or(b'a');
        password.push(char::from(letter));
    }
    Ok(password)
}

fn config_text(dir: &Path, listen: SocketAddr, memory: &Memory) -> Result<String, Failure> {
    let quoted = |path: &Path| toml::Value::from(path.display().to_string()).to_string();
    let mut text = format!(
        "# Written anew by each `recgate demo --dir {}`. `recgate serve --config` takes it as well.\n\
         data_dir = {}\n\n[ssh]\nlisten = [\"{listen}\"]\n\n\
         [metrics]\nlisten = \"127.0.0.1:0\"\n",
        dir.display().to_string().escape_debug(),
        quoted(&dir.join("data")),
    );
    for centre in &CENTRES {
        tenant_text(&mut text, centre.id, centre.name, centre.zone, &memory.users)?;
        let root = dir.join(centre.name);
        text.push_str(&format!(
            "\n[[tenant.source]]\nid = 1\nname = \"pbx\"\nplugin = \"wazo\"\nscan_interval = \"15s\"\n\
             settings = {{ root = {}, cdr_dir = {} }}\n",
            quoted(&root.join("monitor")),
            quoted(&root.join("cdr")),
        ));
    }
    if memory.computed > 0 {
        tenant_text(&mut text, ARCHIVE_ID, ARCHIVE, chrono_tz::America::New_York, &memory.users)?;
        text.push_str(&archive_text(memory.computed, memory.made));
    }
    Ok(text)
}

fn tenant_text(text: &mut String, id: u32, name: &str, zone: Tz, users: &[ReadyUser]) -> Result<(), Failure> {
    text.push_str(&format!("\n[[tenant]]\nid = {id}\nname = \"{name}\"\nzone = \"{}\"\n", zone.name()));
    for (id, user) in (1..).zip(users.iter().filter(|user| user.tenant == name)) {
        let name = user.user.as_ref().map(|name| format!("name = \"{name}\"\n")).unwrap_or_default();
        let role = serde_json::to_string(&user.role).map_err(Failure::failed)?;
        let hash = identity::hash_password(&user.password).map_err(Failure::failed)?;
        text.push_str(&format!(
            "\n[[tenant.user]]\nid = {id}\n{name}role = {role}\npassword_hash = \"{hash}\"\n"
        ));
    }
    Ok(())
}

/// The archive's source: its last day is the one before the demo was made.
fn archive_text(computed: u64, made: DateTime<Utc>) -> String {
    let on_first_day = if computed >= 10 * ON_LARGE_DAY { ON_LARGE_DAY } else { PER_DAY };
    let days = 1 + computed.saturating_sub(on_first_day).div_ceil(PER_DAY);
    let today = u64::try_from(made.timestamp().div_euclid(86_400)).unwrap_or(0);
    format!(
        "\n# None of its media is stored.\n[[tenant.source]]\nid = 1\nname = \"computed\"\nplugin = \"synthetic\"\n\
         scan_interval = \"24h\"\nsettings = {{ recordings = {computed}, first_day = {}, per_day = {PER_DAY}, \
         on_first_day = {on_first_day} }}\n",
        today.saturating_sub(days),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config;

    #[test]
    fn a_demo_is_a_configuration_and_is_taken_up_again() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("a \"demo\"");
        fs::create_dir(&dir).unwrap();
        // As if the recordings were there: making them is tested where it is done.
        let memory = Memory { made: Utc::now(), recordings: 5, computed: 0, users: users(false).unwrap() };
        write_private(&dir.join("demo.json"), &serde_json::to_vec(&memory).unwrap()).unwrap();

        let listen = "127.0.0.1:2022".parse().unwrap();
        let demo = set_up(&dir, listen, None, Utc::now()).unwrap();
        assert_eq!(demo.users, memory.users);
        let config = config::load(&demo.config).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(config.ssh.listen, [listen]);
        assert_eq!(config.data_dir, dir.join("data"));
        assert_eq!(config.tenants.len(), 2);
        assert_eq!(config.tenants[0].users[1].name.as_deref(), Some("manager"));
        let monitor = dir.join("globex/monitor");
        assert_eq!(config.tenants[1].sources[0].settings["root"], monitor.to_str().unwrap());
        for file in ["recgate.toml", "demo.json"] {
            assert_eq!(fs::metadata(dir.join(file)).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let logins: Vec<_> = demo.users.iter().map(|user| user.login.as_str()).collect();
        assert_eq!(logins, ["acme", "acme/manager", "globex", "globex/manager"]);
        assert!(demo.users.iter().all(|user| user.password.len() == 19));
    }

    #[test]
    fn an_archive_ends_yesterday_and_keeps_its_size() {
        for (computed, days) in
            [(1, 1), (5000, 1), (5001, 2), (100_000, 20), (1_000_000, 181), (5_000_000, 981)]
        {
            let dir = tempfile::tempdir().unwrap();
            let memory = Memory { made: Utc::now(), recordings: 5, computed, users: users(true).unwrap() };
            write_private(&dir.path().join("demo.json"), &serde_json::to_vec(&memory).unwrap()).unwrap();
            let listen = "127.0.0.1:2022".parse().unwrap();
            let demo = set_up(dir.path(), listen, Some(computed), Utc::now()).unwrap();
            let config = config::load(&demo.config).unwrap_or_else(|problems| panic!("{problems}"));
            assert_eq!(config.tenants[2].name, ARCHIVE);
            let settings = &config.tenants[2].sources[0].settings;
            let today = memory.made.timestamp() / 86_400;
            assert_eq!(settings["first_day"], today - days, "{computed}");
            assert_eq!(demo.users.last().unwrap().login, "archive/manager");
            let failure = set_up(dir.path(), listen, Some(computed + 1), Utc::now()).unwrap_err();
            assert!(failure.message.contains("choose another folder"), "{}", failure.message);
            assert_eq!(set_up(dir.path(), listen, None, Utc::now()).unwrap().computed, computed);
        }
    }

    #[test]
    fn a_folder_with_other_things_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.txt"), "x").unwrap();
        let failure = set_up(dir.path(), "127.0.0.1:1".parse().unwrap(), None, Utc::now()).unwrap_err();
        assert!(
            failure.message.ends_with("is not empty and holds no demo; choose an empty folder or a new one")
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
