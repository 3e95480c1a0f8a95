//! FileZilla, driven with mouse and keys on a screen that nobody sees.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{DEADLINE, Login};
use crate::{
    command::{Finished, run, wait_for},
    gateway::artefacts,
};

/// The window lies at the screen's corner and has this size: so these points are where they are.
const SCREEN: &str = "1280x900x24";
/// Free space beside the columns of the remote list.
const BESIDE_THE_LIST: [&str; 2] = ["1245", "650"];
/// The second row of the remote list: the first is `..`.
const SECOND_ROW: [&str; 2] = ["700", "525"];

/// What happens to a file that is there already, as FileZilla numbers it.
#[derive(Debug, Clone, Copy)]
pub enum Existing {
    /// It is written anew.
    Overwrite = 1,
    /// It is written anew if its size differs or the server's is newer.
    OverwriteIfDifferent = 4,
    /// What is missing is appended.
    Resume = 5,
}

/// A running FileZilla, connected to the gateway. Dropping it ends it.
#[derive(Debug)]
pub struct FileZilla {
    window: String,
    log: PathBuf,
    program: Child,
    screen: Screen,
}

/// An X server without a screen.
#[derive(Debug)]
struct Screen {
    server: Child,
    display: String,
}

impl Login {
    /// Starts FileZilla with a site for this login, and waits until it shows the remote folder, which begins with `/`.
    pub fn filezilla(&self, local: &Path, remote: &str, existing: Existing) -> FileZilla {
        self.putty_trust();
        let log = self.home.join("filezilla.log");
        self.write_settings(local, remote, existing, &log);
        drop(fs::remove_file(&log));
        let screen = Screen::start(&self.home);
        let mut command = Command::new("filezilla");
        self.settle(&mut command);
        command.args(["--site=0/gateway", &format!("--local={}", local.display())]);
        let printed = File::create(self.home.join("filezilla.printed")).unwrap();
        command
            .env("DISPLAY", &screen.display)
            .env("GDK_BACKEND", "x11")
            .env("NO_AT_BRIDGE", "1")
            .env_remove("WAYLAND_DISPLAY")
            .env_remove("XDG_RUNTIME_DIR")
            .stdin(Stdio::null())
            .stdout(printed.try_clone().unwrap())
            .stderr(printed);
        let program = command.spawn().unwrap();
        let mut client = FileZilla { window: String::new(), log, program, screen };
        client.wait_for_log(1, &format!("Directory listing of \"{remote}\" successful"));
        client.window = client.find_window();
        client
    }

    fn write_settings(&self, local: &Path, remote: &str, existing: Existing, log: &Path) {
        let settings = self.home.join(".config/filezilla");
        fs::create_dir_all(&settings).unwrap();
        let existing = existing as u32;
        let log = log.display();
        // No greeting, no search for updates; what is asked in a window otherwise is settled here.
        // No tree of local folders: it shows those of other tests beside this one's, and when one of them goes, FileZilla
        // may change to another.
        let general = format!(
            r#"<Setting name="Greeting version">99.0.0</Setting><Setting name="Greeting resources">x</Setting>
<Setting name="Update Check">0</Setting><Setting name="Prompt password save">0</Setting>
<Setting name="Logging file">{log}</Setting><Setting name="Logging show detailed logs">1</Setting>
<Setting name="Language Code">C</Setting><Setting name="Window position and size">0 0 0 1280 900</Setting>
<Setting name="Show Tree Local">0</Setting>
<Setting name="Reconnect delay">1</Setting><Setting name="Reconnect count">5</Setting>
<Setting name="File exists action download">{existing}</Setting>"#
        );
        let secret = match &self.key {
            Some(key) => {
                format!("<Logontype>5</Logontype><Keyfile>{}</Keyfile>", self.putty_key(key).display())
            }
            None => format!("<Logontype>1</Logontype><Pass>{}</Pass>", self.password),
        };
        // A path is the length and text of each of its folders.
        let folders = remote.split('/').filter(|folder| !folder.is_empty());
        let path: String = folders.map(|folder| format!(" {} {folder}", folder.len())).collect();
        let site = format!(
            "<Host>127.0.0.1</Host><Port>{}</Port><Protocol>1</Protocol><Type>0</Type><User>{}</User>{secret}\n\
             <EncodingType>Auto</EncodingType><BypassProxy>0</BypassProxy><Name>gateway</Name>\n\
             <LocalDir>{}</LocalDir><RemoteDir>1 0{path}</RemoteDir>\n\
             <SyncBrowsing>0</SyncBrowsing><DirectoryComparison>0</DirectoryComparison>",
            self.port,
            self.user,
            local.display()
        );
        for (name, content) in [
            ("filezilla.xml", format!("<Settings>{general}</Settings>")),
            ("sitemanager.xml", format!("<Servers><Server>{site}</Server></Servers>")),
        ] {
            let text = format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
                 <FileZilla3 version=\"3.63.0\" platform=\"*nix\">{content}</FileZilla3>\n"
            );
            fs::write(settings.join(name), text).unwrap();
        }
    }
}

impl FileZilla {
    /// Selects all that the remote list shows, and downloads it from the context menu.
    pub fn download_all(&self) {
        let before = self.log().len();
        let begun = || self.log().len() > before;
        let end = Instant::now() + DEADLINE;
        // The list may be drawn a moment after the log has told of it: then there was nothing to select.
        while !begun() {
            assert!(Instant::now() < end, "no download has begun: {}", self.log());
            let windows = self.visible_windows();
            let [x, y] = BESIDE_THE_LIST;
            let [row_x, row_y] = SECOND_ROW;
            self.xdotool(&["windowfocus", "--sync", &self.window]);
            self.xdotool(&["mousemove", x, y, "click", "1", "key", "ctrl+a"]);
            self.xdotool(&["mousemove", row_x, row_y, "click", "3"]);
            poll(Duration::from_secs(3), || self.visible_windows() > windows);
            // "Download" is the first entry of the menu.
            self.xdotool(&["key", "Down", "Return"]);
            if !poll(Duration::from_secs(3), begun) {
                self.xdotool(&["key", "Escape", "Escape"]);
            }
        }
    }

    /// Waits until the log has so many lines with these words.
    pub fn wait_for_log(&self, count: usize, words: &str) {
        let found = || self.log().lines().filter(|line| line.contains(words)).count();
        if !poll(DEADLINE, || found() >= count) {
            self.screenshot("filezilla-failed");
            panic!("{} of {count} lines with {words:?}:\n{}", found(), self.log());
        }
    }

    /// The log of messages.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Keeps what the screen shows as `target/e2e-artefacts/NAME.png`.
    pub fn screenshot(&self, name: &str) -> PathBuf {
        let picture = artefacts().join(format!("{name}.png"));
        let mut import = Command::new("import");
        import.args(["-display", &self.screen.display, "-window", "root"]).arg(&picture);
        run(&mut import, b"", DEADLINE).success();
        picture
    }

    fn find_window(&self) -> String {
        let pid = self.program.id().to_string();
        wait_for("FileZilla's window", DEADLINE, || {
            let search = ["search", "--onlyvisible", "--pid", &pid, "--name", "FileZilla"];
            self.xdotool(&search).stdout.lines().last().map(str::to_owned)
        })
    }

    fn visible_windows(&self) -> usize {
        self.xdotool(&["search", "--onlyvisible", "--name", ".*"]).stdout.lines().count()
    }

    fn xdotool(&self, arguments: &[&str]) -> Finished {
        run(Command::new("xdotool").args(arguments).env("DISPLAY", &self.screen.display), b"", DEADLINE)
    }
}

impl Drop for FileZilla {
    fn drop(&mut self) {
        // Both fail only if it has ended already. Its children end with it: they read its commands.
        drop(self.program.kill());
        drop(self.program.wait());
        if thread::panicking() {
            eprintln!("--- FileZilla's log\n{}", self.log());
        }
    }
}

impl Screen {
    /// Starts it on a display that nobody uses.
    fn start(home: &Path) -> Self {
        let mut command = Command::new("Xvfb");
        command.args(["-displayfd", "1", "-screen", "0", SCREEN, "-nolisten", "tcp"]);
        let messages = File::create(home.join("xvfb.messages")).unwrap();
        let mut server =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(messages).spawn().unwrap();
        let mut number = String::new();
        // It writes the line as soon as it takes connections, or ends.
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut number).unwrap();
        let screen = Self { server, display: format!(":{}", number.trim()) };
        let said = fs::read_to_string(home.join("xvfb.messages")).unwrap();
        assert!(!number.trim().is_empty(), "Xvfb hasn't started: {said}");
        screen
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // SIGTERM, so that it removes its lock; both fail only if it has ended already.
        let pid = i32::try_from(self.server.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ended = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        drop(self.server.wait());
    }
}

/// Asks until it is so; says whether it became so in time.
fn poll(deadline: Duration, mut ask: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if ask() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        thread::sleep(Duration::from_millis(50));
    }
}
