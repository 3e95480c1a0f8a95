//! The benchmark itself works: its quickest row, at a small size.

use std::{process::Command, time::Duration};

use recgate_e2e::{run, turn};

const DEADLINE: Duration = Duration::from_secs(120);

#[test]
fn a_quick_run_prints_its_table_and_leaves_nothing_behind() {
    let _turn = turn();
    let folder = tempfile::TempDir::new().unwrap();
    let mut bench = Command::new(env!("CARGO_BIN_EXE_bench"));
    bench.args(["--quick", "--rows", "slow-storage"]).env("TMPDIR", folder.path());
    let finished = run(&mut bench, b"", DEADLINE).success();
    assert!(finished.stdout.contains("cores"), "the machine isn't told: {finished}");
    for row in ["from memory", "20 ms before each read, against memory", "100 ms before each read"] {
        let line =
            finished.stdout.lines().find(|line| line.starts_with("| get 16 MiB") && line.contains(row));
        assert!(
            line.is_some_and(|line| line.contains("MiB/s") || line.contains("times")),
            "{row}: {finished}"
        );
    }
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 0, "files that a finished benchmark left");
    let running = std::fs::read_dir("/proc").unwrap().flatten().filter(|process| {
        let told = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&told).contains(folder.path().to_str().unwrap())
    });
    assert_eq!(running.count(), 0, "processes that a finished benchmark left");
}

#[test]
fn a_wrong_argument_is_named() {
    let _turn = turn();
    for (arguments, named) in [
        (["--rows", "lits"], "lits"),
        (["--pairs", "0"], "--pairs 0"),
        (["--size", "9999"], "--size 9999"),
        (["--without", "openssh"], "openssh"),
        (["--pears", "3"], "--pears"),
    ] {
        let mut bench = Command::new(env!("CARGO_BIN_EXE_bench"));
        let finished = run(bench.args(arguments), b"", DEADLINE).code(2);
        assert!(finished.stderr.contains(named), "{arguments:?}: {finished}");
        assert!(finished.stderr.contains("slow-storage"), "the rows aren't told: {finished}");
    }
}
