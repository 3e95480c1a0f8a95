//! No spelling of a path leads out of a tenant's tree, and all requests agree on what a path is.

use std::fs;

use recgate_e2e::{Fixture, Kind, Raw};

/// Ways to say a path of somebody else; `{}` is a path of their tree without its first slash.
const SPELLINGS: [&str; 30] = [
    "{}",
    "/{}",
    "//{}",
    "../{}",
    "/../{}",
    "/../../{}",
    "/../../../../../../{}",
    "/S20160606/../../{}",
    "/S20160606/../../globex/{}",
    "/globex/{}",
    "globex/{}",
    "/../globex/{}",
    "~globex/{}",
    "/~globex/{}",
    "~/{}",
    "/./../{}",
    "/.../{}",
    "/..//..//{}",
    "/Index/../{}",
    "/Index/../../globex/{}",
    "\\..\\..\\{}",
    "/..\\{}",
    "/%2e%2e/{}",
    "/%2e%2e/globex/{}",
    "/..;/{}",
    "/\u{2025}/{}",
    "/\u{ff0e}\u{ff0e}/{}",
    "/S20160606/./.././/{}",
    "globex:/{}",
    "/2/{}",
];

#[test]
fn two_tenants_never_see_each_other() {
    let mut fixture = Fixture::new();
    let calls = fixture.fill();
    fixture.start();
    for tenant in ["acme", "globex"] {
        fixture.wait_published(tenant, &calls[tenant]);
    }
    let theirs: Vec<Vec<u8>> = calls["globex"].iter().map(|call| call.bytes.clone()).collect();
    let mut raw = fixture.login("acme").raw();
    let own = raw.tree();
    for call in &calls["globex"] {
        let media = fixture.wazo["globex"].media_path(call);
        let stored = [
            media.to_str().unwrap().trim_start_matches('/').to_owned(),
            format!("monitor/{}.wav", call.uuid),
        ];
        for path in [call.path()].iter().chain(&stored) {
            for spelling in SPELLINGS {
                let path = spelling.replace("{}", path);
                if let Ok(bytes) = raw.file(&path) {
                    // Both have a recording of one second: then the own one is shown.
                    assert!(!theirs.contains(&bytes), "{path} shows globex's recording to acme");
                    let real = raw.realpath(path.as_bytes()).unwrap();
                    assert!(own.contains_key(&real), "{path} is {real}, which no listing shows");
                }
            }
        }
    }
    for spelling in SPELLINGS {
        for folder in ["", "S20160608", "etc", "proc/self", "Orphans"] {
            let path = spelling.replace("{}", folder);
            if let Ok(entries) = raw.list(&path) {
                let real = raw.realpath(path.as_bytes()).unwrap();
                assert!(real == "/" || own.contains_key(&real), "{path} is {real}, which no listing shows");
                for entry in entries {
                    let below = format!("{}/{}", real.trim_end_matches('/'), entry.name);
                    assert!(own.contains_key(&below), "{path} lists {below}");
                }
            }
        }
    }

    // The same with a client whose own rules for paths come before ours.
    let target = fixture.new_folder("stolen");
    for spelling in SPELLINGS {
        let path = spelling.replace("{}", &calls["globex"][2].path());
        let quoted = path.replace('\\', "\\\\");
        fixture.login("acme").sftp(&format!("-get \"{quoted}\" {}/\n", target.display()));
    }
    for entry in fs::read_dir(&target).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        assert!(!theirs.contains(&bytes), "sftp got globex's recording as acme");
    }
}

#[test]
fn stat_open_opendir_and_realpath_agree_on_any_path() {
    let mut fixture = Fixture::new();
    let calls = fixture.fill();
    fixture.start();
    fixture.wait_published("acme", &calls["acme"]);
    let mut raw = fixture.login("acme").raw();
    let tree = raw.tree();
    let mut pieces: Vec<Vec<u8>> = [
        "",
        ".",
        "..",
        "...",
        "Index",
        "index",
        "Orphans",
        "S20160606",
        "S20160607",
        "S20160608",
        "S2016606",
        "s20160606",
        "S20160631",
        "S99999999",
        "S00000000",
        "S+2016060",
        "I20160606.csv",
        "I20160606_version2.csv",
        "I20160605.csv",
        "M20160606.csv",
        "R201606060700000000.wav",
        "R20160606070000.wav",
        "R201606060700000000.WAV",
        "R201606060700000001.wav",
        "R2016060607000000000.wav",
        "R201606060700000000",
        "R201606060759600000.wav",
        " ",
        "*",
        "~",
        "-",
        "\\",
        "%00",
        "a\nb",
        "\u{7f}",
        "é",
        "e\u{301}",
        "\u{202e}vaw",
        "CON",
        "nul",
    ]
    .iter()
    .map(|piece| piece.as_bytes().to_vec())
    .collect();
    pieces.extend([
        b"\0".to_vec(),
        b"S20160606\0".to_vec(),
        b"\xff\xfe".to_vec(),
        vec![b'x'; 256],
        vec![b'y'; 5000],
    ]);
    pieces.extend(calls["acme"].iter().map(|call| call.name().into_bytes()));

    // Reproducible: a failure prints the path.
    let mut random = 0x2016_0606_u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap() % below
    };
    let mut found = 0;
    for _ in 0..3000 {
        let mut path = Vec::new();
        for at in 0..=next(4) {
            if at > 0 || next(4) > 0 {
                path.extend(vec![b'/'; 1 + next(10) / 9]);
            }
            path.extend(&pieces[next(pieces.len())]);
        }
        if next(6) == 0 {
            path.push(b'/');
        }
        found += usize::from(agree(&mut raw, &path, &tree));
    }
    assert!(found > 100, "only {found} of the paths exist: the test proves little");
}

/// Asks all four about a path, and whether what they say fits together. Returns whether the path exists.
fn agree(raw: &mut Raw, path: &[u8], tree: &std::collections::BTreeMap<String, recgate_e2e::Stat>) -> bool {
    let shown = String::from_utf8_lossy(path).into_owned();
    let stat = raw.stat(path);
    assert_eq!(stat, raw.lstat(path), "{shown:?}: stat and lstat");
    let open = raw.open(path);
    let opendir = raw.opendir(path);
    let realpath = raw.realpath(path);
    for handle in [&open, &opendir].into_iter().flatten() {
        raw.close(handle);
    }
    match stat {
        Ok(stat) => {
            let real = realpath
                .unwrap_or_else(|status| panic!("{shown:?}: stat finds it, realpath says {status:?}"));
            assert_eq!(open.is_ok(), stat.kind == Kind::File, "{shown:?}: {stat:?}, open says {open:?}");
            assert_eq!(
                opendir.is_ok(),
                stat.kind == Kind::Folder,
                "{shown:?}: {stat:?}, opendir says {opendir:?}"
            );
            assert_eq!(raw.stat(real.as_bytes()), Ok(stat), "{shown:?}: stat of its realpath {real:?}");
            assert_eq!(raw.realpath(real.as_bytes()).as_ref(), Ok(&real), "{shown:?}: realpath again");
            if let Some(listed) = tree.get(&real) {
                assert_eq!(*listed, stat, "{shown:?}: the listing shows something else");
            }
            true
        }
        Err(status) => {
            let refused = open.expect_err(&shown);
            assert_eq!(refused.code, status.code, "{shown:?}: stat {status:?}, open {refused:?}");
            let refused = opendir.expect_err(&shown);
            assert_eq!(refused.code, status.code, "{shown:?}: stat {status:?}, opendir {refused:?}");
            // realpath may answer for what doesn't exist, as OpenSSH's does; it must not lead anywhere else.
            if let Ok(real) = realpath {
                let again = raw.stat(real.as_bytes()).expect_err(&shown);
                assert_eq!(again.code, status.code, "{shown:?}: stat of its realpath {real:?}");
            }
            false
        }
    }
}
