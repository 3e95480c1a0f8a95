//! sshfs: the tree as a folder of the machine.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use super::{DEADLINE, Login};
use crate::command::{run, wait_for};

/// A mounted tree. Dropping it unmounts it, also when the test fails.
#[derive(Debug)]
pub struct Mount {
    folder: PathBuf,
    messages: PathBuf,
    sshfs: Child,
}

impl Login {
    /// Mounts the tree on an empty folder.
    pub fn mount(&self, folder: &Path, options: &[&str]) -> Mount {
        let messages = folder.with_extension("sshfs-messages");
        let mut command = Command::new("sshfs");
        self.settle(&mut command);
        // In the foreground: it can be waited for.
        command.args(["-f", "-F", "/dev/null", "-p"]).arg(self.port.to_string());
        // The user stands before the host.
        for option in self.ssh_options().iter().filter(|it| *it != "-o" && !it.starts_with("User=")) {
            command.args(["-o", option]);
        }
        for option in options {
            command.args(["-o", option]);
        }
        if self.key.is_none() {
            command.args(["-o", "password_stdin"]);
        }
        command.arg(format!("{}@127.0.0.1:/", self.user)).arg(folder);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(File::create(&messages).unwrap());
        let mut sshfs = command.spawn().unwrap();
        if self.key.is_none() {
            writeln!(sshfs.stdin.take().unwrap(), "{}", self.password).unwrap();
        }
        let mut mount = Mount { folder: folder.to_owned(), messages, sshfs };
        wait_for("the mount", DEADLINE, || {
            if let Some(status) = mount.sshfs.try_wait().unwrap() {
                panic!("sshfs ended while it mounted, {status}: {}", mount.messages());
            }
            mount.is_mounted().then_some(())
        });
        mount
    }
}

impl Mount {
    /// What sshfs has said.
    pub fn messages(&self) -> String {
        fs::read_to_string(&self.messages).unwrap_or_default()
    }

    /// Unmounts, which must succeed at once: nothing is open any more.
    pub fn unmount(mut self) {
        run(Command::new("fusermount3").arg("-u").arg(&self.folder), b"", DEADLINE).success();
        let status = wait_for("the end of sshfs", DEADLINE, || self.sshfs.try_wait().unwrap());
        assert!(status.success(), "{status}: {}", self.messages());
    }

    fn is_mounted(&self) -> bool {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let folder = self.folder.to_str().unwrap();
        mounts.lines().any(|line| line.split(' ').nth(1) == Some(folder) && line.contains("fuse.sshfs"))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.is_mounted() {
            // Lazily: whatever is still open must not keep it.
            let status = Command::new("fusermount3").args(["-u", "-z"]).arg(&self.folder).status();
            if thread::panicking() {
                eprintln!("--- sshfs, unmounted ({status:?}), had said\n{}", self.messages());
            }
        }
        // Both fail only if it has ended already.
        drop(self.sshfs.kill());
        drop(self.sshfs.wait());
    }
}
