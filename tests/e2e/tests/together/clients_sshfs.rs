//! sshfs: the tree as a folder of the machine.

use std::{collections::BTreeMap, path::Path, process::Command, time::Duration};

use recgate_e2e::{
    Finished, NO_DELETING, NO_FOLDERS, NO_WRITING, Served, assert_mirrors, assert_same_times, run, untouched,
};

/// A program that works in the mounted folder: it has a deadline, while this process would hang in it.
fn shell(script: &str, folder: &Path) -> Finished {
    let mut command = Command::new("bash");
    command.args(["-euc", script]).current_dir(folder.parent().unwrap()).env("LC_ALL", "C.UTF-8");
    run(&mut command, b"", Duration::from_secs(60))
}

#[test]
fn rsync_out_of_a_mount_transfers_nothing_the_second_time() {
    let served = Served::new();
    for login in served.logins() {
        let user = login.user.replace('/', "-");
        let originals = served.originals_of(&login);
        let folder = served.fixture.new_folder(&format!("mount-{user}"));
        let mirror = served.folder_for(&login);
        let mount = login.mount(&folder, &[]);
        let sync = format!("rsync --archive --itemize-changes --stats mount-{user}/ {}/", mirror.display());
        shell(&sync, &folder).success();
        assert_mirrors(&mirror, originals);
        assert_same_times(&mirror, originals);
        let before = untouched(&mirror);
        let second = shell(&sync, &folder).success();
        assert!(second.stdout.contains("Number of regular files transferred: 0"), "{second}");
        // Not even an attribute differs.
        assert!(!second.stdout.lines().any(|line| line.starts_with(['>', '.', 'c'])), "{second}");
        assert_eq!(untouched(&mirror), before);
        mount.unmount();
    }
}

#[test]
fn find_shows_exact_sizes_and_times() {
    let served = Served::new();
    let login = served.by_key("globex");
    let folder = served.fixture.new_folder("mount");
    let mount = login.mount(&folder, &[]);
    let found = shell("find mount -type f -printf '%P %s %T@ %M\\n'", &folder).success();
    let found: BTreeMap<&str, Vec<&str>> = found
        .stdout
        .lines()
        .map(|line| {
            let mut fields = line.split(' ');
            (fields.next().unwrap(), fields.collect())
        })
        .collect();
    let originals = served.originals_of(&login);
    assert_eq!(found.keys().collect::<Vec<_>>(), originals.keys().collect::<Vec<_>>());
    for (path, original) in originals {
        let [size, modified, mode] = found[path.as_str()][..] else { panic!("{path}") };
        assert_eq!(size, original.bytes.len().to_string(), "{path}");
        assert_eq!(modified, format!("{}.0000000000", original.modified), "{path}");
        assert_eq!(mode, "-r--r-----", "{path}");
    }
    mount.unmount();
}

#[test]
fn random_reads_bring_the_right_bytes() {
    let served = Served::new();
    let (path, large) = served.large();
    let login = served.fixture.login("acme/manager");
    let folder = served.fixture.new_folder("mount");
    let original = served.fixture.path().join("original.wav");
    std::fs::write(&original, &large.bytes).unwrap();
    let mount = login.mount(&folder, &[]);
    // cmp reads both from the same place; some readers at once, each from its own.
    let end = large.bytes.len();
    let mut script = "pids=()\n".to_owned();
    for number in 0..60 {
        // Scattered by a multiplier without a common factor.
        let offset = number * 1_299_709 % end;
        let length = 1 + number * 7919 % 300_000;
        script += &format!(
            "cmp --bytes={length} --ignore-initial={offset} mount/{path} original.wav & pids+=($!)\n"
        );
        if number % 6 == 5 {
            // Each by its number: a job that has ended before is no job any more, but its status is kept.
            script += "for pid in ${pids[@]}; do wait $pid; done\npids=()\n";
        }
    }
    script += &format!("test $(tail --bytes=+{end} mount/{path} | wc --bytes) = 1\n");
    script += &format!("test $(tail --bytes=+{} mount/{path} | wc --bytes) = 0\n", end + 1);
    shell(&script, &folder).success();
    mount.unmount();
}

#[test]
fn refusals_are_permission_denied_and_explained() {
    let served = Served::new();
    let login = served.fixture.login("acme");
    let folder = served.fixture.new_folder("mount");
    let recording = served.calls["acme"][0].path();
    let mount = login.mount(&folder, &[]);
    for (script, sentence) in [
        ("echo mine >mount/S20160606/mine.wav", NO_WRITING),
        ("mkdir mount/new", NO_FOLDERS),
        (&format!("rm -f mount/{recording}"), NO_DELETING),
        (&format!("mv mount/{recording} mount/S20160606/other.wav"), "renaming is refused"),
        (&format!("chmod 600 mount/{recording}"), "changing attributes is refused"),
    ] {
        let refused = shell(script, &folder).code(1);
        assert!(refused.stderr.contains("Permission denied"), "{script}: {refused}");
        recgate_e2e::wait_for(sentence, Duration::from_secs(20), || {
            mount.messages().contains(sentence).then_some(())
        });
    }
    let missing = shell("cat mount/nothing", &folder).code(1);
    assert!(missing.stderr.contains("No such file or directory"), "{missing}");
    mount.unmount();
}
