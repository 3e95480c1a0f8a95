//! Peers that haven't logged in and behave as if they had, or try to by every means but the right one.

use recgate_e2e::{
    hostile::{Answer, KeyPair, Message, Scene, Ssh, msg, number},
    password,
};

const SHORT_GRACE: &str = "login_grace = \"3s\"";
/// What a few connections before their login may take of the gateway's memory, while a length may say 4 GiB.
const A_FEW_CONNECTIONS: u64 = 32 << 20;
/// The user who has [`key`]: `acme/keyed`, and a password as well.
const KEYED: &str = "acme/keyed";

fn key() -> KeyPair {
    KeyPair::of(1)
}

/// A scene in which `acme/keyed` has a key and no password, `acme/both` needs the key and then acme's password.
fn scene(limits: &str) -> Scene {
    Scene::with(|config| {
        let key = key().line();
        let hash = config.lines().find(|line| line.starts_with("password_hash")).unwrap().to_owned();
        let users = format!(
            "[[tenant.user]]\nid = 7\nname = \"keyed\"\nrole = \"downloader\"\nauthorized_keys = [\"{key}\"]\n\n\
             [[tenant.user]]\nid = 8\nname = \"both\"\nrole = \"downloader\"\nauthorized_keys = [\"{key}\"]\n{hash}\n\
             require = [\"publickey\", \"password\"]\n\n[[tenant.source]]"
        );
        let config = config.replacen("[[tenant.source]]", &users, 1);
        format!("{config}\n[limits]\n{limits}\n")
    })
}

/// A connection on which logins are taken.
fn ready(scene: &Scene) -> Ssh {
    let mut ssh = Ssh::encrypted(scene.port);
    ssh.userauth();
    ssh
}

/// Nothing of the services behind the login is answered.
#[track_caller]
fn is_shut(mut ssh: Ssh) {
    drop(ssh.try_send(Message::new(msg::CHANNEL_OPEN).string("session").u32(0).u32(1 << 20).u32(1 << 15)));
    while let Some(message) = ssh.receive() {
        let number = number(&message);
        assert!(
            !matches!(number, msg::USERAUTH_SUCCESS | msg::CHANNEL_OPEN_CONFIRMATION..=msg::CHANNEL_FAILURE),
            "message {number} without a login"
        );
        if number == msg::DISCONNECT {
            break;
        }
    }
}

#[track_caller]
fn is_refused(answer: &Answer) {
    assert!(matches!(answer, Answer::Failure(_, false) | Answer::Closed(_)), "{answer:?}");
}

#[test]
fn nothing_is_served_before_the_login() {
    let scene = scene(SHORT_GRACE);
    let session = Message::new(msg::CHANNEL_OPEN).string("session").u32(0).u32(1 << 20).u32(1 << 15);
    let tcp = Message::new(msg::CHANNEL_OPEN).string("direct-tcpip").u32(0).u32(1 << 20).u32(1 << 15);
    let subsystem = Message::new(msg::CHANNEL_REQUEST).u32(0).string("subsystem").byte(1).string("sftp");
    let exec = Message::new(msg::CHANNEL_REQUEST).u32(0).string("exec").byte(1).string("id");
    let data = Message::new(msg::CHANNEL_DATA).u32(0).string([0, 0, 0, 5, 1, 0, 0, 0, 3]);
    let early = [
        session.clone(),
        tcp.string("127.0.0.1").u32(22).string("127.0.0.1").u32(1),
        subsystem.clone(),
        exec,
        data.clone(),
        Message::new(msg::CHANNEL_WINDOW_ADJUST).u32(0).u32(u32::MAX),
        Message::new(msg::CHANNEL_EOF).u32(0),
        Message::new(msg::CHANNEL_CLOSE).u32(0),
        Message::new(msg::CHANNEL_OPEN_CONFIRMATION).u32(0).u32(0).u32(1 << 20).u32(1 << 15),
        Message::new(msg::GLOBAL_REQUEST).string("tcpip-forward").byte(1).string("0.0.0.0").u32(2222),
        Message::new(msg::REQUEST_SUCCESS),
        // What only a server sends.
        Message::new(msg::USERAUTH_SUCCESS),
        Message::new(msg::SERVICE_ACCEPT).string("ssh-connection"),
        Message::new(msg::USERAUTH_PK_OK).string("ssh-ed25519").string(key().blob()),
        Message::new(msg::USERAUTH_INFO_RESPONSE).u32(1).string(password("acme")),
        Message::new(msg::USERAUTH_INFO_RESPONSE).u32(u32::MAX),
        Message::new(255).raw([0; 100]),
    ];
    for userauth in [false, true] {
        for message in &early {
            let mut ssh = Ssh::encrypted(scene.port);
            if userauth {
                ssh.userauth();
            }
            drop(ssh.try_send(message));
            drop(ssh.try_send(&session));
            drop(ssh.try_send(&subsystem));
            drop(ssh.try_send(&data));
            drop(ssh.try_send(Message::new(msg::DISCONNECT).u32(11).string("").string("")));
            is_shut(ssh);
        }
    }
    // A login without the service that it belongs to, another service, and a login for another service.
    let mut ssh = Ssh::encrypted(scene.port);
    let login = Ssh::request("acme", "password").byte(0).string(password("acme"));
    drop(ssh.try_send(&login));
    is_shut(ssh);
    for service in ["ssh-connection", "", "ssh-userauth\0", "rsync"] {
        let mut ssh = Ssh::encrypted(scene.port);
        drop(ssh.try_send(Message::new(msg::SERVICE_REQUEST).string(service)));
        drop(ssh.try_send(&login));
        is_shut(ssh);
        let mut ssh = ready(&scene);
        let request = Message::new(msg::USERAUTH_REQUEST).string("acme").string(service).string("password");
        if service != "ssh-connection" {
            is_refused(&ssh.try_login(&request.byte(0).string(password("acme"))));
        }
    }
    scene.unharmed();
}

#[test]
fn only_the_offered_keys_own_signature_over_this_session_counts() {
    let scene = scene("");
    let (own, other) = (key(), KeyPair::of(2));
    let mut ssh = ready(&scene);
    assert_eq!(ssh.key(KEYED, &own), Answer::Success, "the key by itself is good");

    let request = Ssh::key_request(KEYED, &own);
    // Each is tried as it is, and after the key was offered and found good.
    for offered in [false, true] {
        let fresh = || {
            let mut ssh = ready(&scene);
            if offered {
                assert_eq!(ssh.offer(KEYED, &own), Answer::KeyIsFine);
            }
            ssh
        };
        let mut ssh = fresh();
        let right = Ssh::signed(&ssh.session_id, &request);
        is_refused(&ssh.try_login(&request.clone().string(other.sign(&right))));

        // What an accomplice got signed on another connection.
        let elsewhere = ready(&scene).session_id;
        let mut ssh = fresh();
        is_refused(&ssh.try_login(&request.clone().string(own.sign(&Ssh::signed(&elsewhere, &request)))));
        let mut ssh = fresh();
        is_refused(&ssh.try_login(&request.clone().string(own.sign(&Ssh::signed(b"", &request)))));

        // Signed for another user, for another service, for another key.
        let mut ssh = fresh();
        let for_another = Ssh::signed(&ssh.session_id, &Ssh::key_request("acme/both", &own));
        is_refused(&ssh.try_login(&request.clone().string(own.sign(&for_another))));
        let mut ssh = fresh();
        let with_another = Ssh::signed(&ssh.session_id, &Ssh::key_request(KEYED, &other));
        is_refused(&ssh.try_login(&request.clone().string(own.sign(&with_another))));

        // A key that isn't this user's, rightly signed.
        let mut ssh = fresh();
        is_refused(&ssh.key(KEYED, &other));

        // Signatures that are none.
        let mut ssh = fresh();
        let right = own.sign(&Ssh::signed(&ssh.session_id, &request));
        let mut turned = right.clone();
        *turned.last_mut().unwrap() ^= 1;
        is_refused(&ssh.try_login(&request.clone().string(turned)));
        for wrong in [&right[..right.len() - 1], &right[..19], b"", &[0; 83]] {
            let mut ssh = fresh();
            is_refused(&ssh.try_login(&request.clone().string(wrong)));
        }
        // More after the signature, and none at all.
        let mut ssh = fresh();
        let signature = own.sign(&Ssh::signed(&ssh.session_id, &request));
        is_refused(&ssh.try_login(&request.clone().string(signature).string("more")));
        let mut ssh = fresh();
        is_refused(&ssh.try_login(&request));
    }
    // Another algorithm's name over the same key.
    for algorithm in
        ["ssh-rsa", "rsa-sha2-512", "ecdsa-sha2-nistp256", "ssh-ed25519-cert-v01@openssh.com", "", "none"]
    {
        let mut ssh = ready(&scene);
        let request = Ssh::request(KEYED, "publickey").byte(1).string(algorithm).string(own.blob());
        let signature = own.sign(&Ssh::signed(&ssh.session_id, &request));
        is_refused(&ssh.try_login(&request.string(signature)));
    }
    scene.unharmed();
}

#[test]
fn a_user_who_changes_in_the_middle_takes_nothing_along() {
    let scene = scene("");
    let (own, manager) = (key(), "acme/manager");
    let right = |ssh: &Ssh, user: &str| {
        let request = Ssh::key_request(user, &own);
        let signature = own.sign(&Ssh::signed(&ssh.session_id, &request));
        request.string(signature)
    };
    // The key was found good for one, and is used for another.
    let mut ssh = ready(&scene);
    assert_eq!(ssh.offer(KEYED, &own), Answer::KeyIsFine);
    let login = right(&ssh, manager);
    is_refused(&ssh.try_login(&login));
    // And back again, after another's refusal.
    assert_eq!(ssh.key(KEYED, &own), Answer::Success);

    // One half of what both need is no half for another.
    let halves = |ssh: &mut Ssh| {
        let login = right(ssh, "acme/both");
        let answer = ssh.try_login(&login);
        assert!(matches!(&answer, Answer::Failure(next, true) if next.starts_with("password")), "{answer:?}");
    };
    let mut ssh = ready(&scene);
    halves(&mut ssh);
    assert_eq!(
        ssh.password("acme/both", &password("acme")),
        Answer::Success,
        "both halves are good together"
    );
    for change in ["globex", "globex/manager", "acme/nobody", ""] {
        let mut ssh = ready(&scene);
        halves(&mut ssh);
        is_refused(&ssh.password(change, &password("acme")));
        // Whoever returns begins anew.
        is_refused(&ssh.password("acme/both", &password("acme")));
    }
    // The same with other requests between the halves, which say that somebody else is meant.
    type Between<'b> = (&'b str, fn(&mut Ssh, &KeyPair) -> Answer);
    let between: [Between<'_>; 3] = [
        ("none", |ssh, _| ssh.try_login(&Ssh::request("acme", "none"))),
        ("an offer", |ssh, key| ssh.offer(KEYED, key)),
        ("a wrong password", |ssh, _| ssh.password("acme", "wrong")),
    ];
    for (what, ask) in between {
        let mut ssh = ready(&scene);
        halves(&mut ssh);
        ask(&mut ssh, &own);
        let answer = ssh.password("acme/both", &password("acme"));
        assert!(!matches!(answer, Answer::Success), "{what} by another user between the halves: {answer:?}");
    }
    // The halves in the wrong order, and the same half twice.
    let mut ssh = ready(&scene);
    is_refused(&ssh.password("acme/both", &password("acme")));
    let mut ssh = ready(&scene);
    halves(&mut ssh);
    let answer = {
        let login = right(&ssh, "acme/both");
        ssh.try_login(&login)
    };
    assert!(!matches!(answer, Answer::Success), "{answer:?}");

    // Questions are asked for one user, and answered for another: the last one counts, with their own password.
    let interactive = |user: &str| Ssh::request(user, "keyboard-interactive").string("").string("");
    let mut ssh = ready(&scene);
    assert!(matches!(ssh.try_login(&interactive("acme")), Answer::Other(_)));
    assert!(matches!(ssh.try_login(&interactive("globex")), Answer::Other(_)));
    let response = Message::new(msg::USERAUTH_INFO_RESPONSE).u32(1).string(password("acme"));
    is_refused(&ssh.try_login(&response));
    let mut ssh = ready(&scene);
    assert!(matches!(ssh.try_login(&interactive("acme")), Answer::Other(_)));
    assert_eq!(ssh.offer(KEYED, &own), Answer::KeyIsFine);
    is_refused(&ssh.try_login(&response));
    scene.unharmed();
}

#[test]
fn who_does_not_log_in_in_time_is_told_so() {
    let scene = scene("login_grace = \"2s\"");
    let last = ready(&scene).expect(msg::DISCONNECT);
    assert!(String::from_utf8_lossy(&last).contains("no login in time"));
    scene.unharmed();
}

#[test]
fn attempts_without_end_come_to_an_end() {
    let scene = scene("login_grace = \"5s\"");
    let bystander = scene.bystander();
    bystander.works_on_during(|| attempts_without_end(&scene));
    bystander.leave();
    scene.unharmed();
}

fn attempts_without_end(scene: &Scene) {
    let (own, other) = (key(), KeyPair::of(2));
    let wrong = Ssh::key_request(KEYED, &own).string(other.sign(b"x"));
    let change = Ssh::request("acme", "password").byte(1).string("old").string("new");
    let questions = Ssh::request("acme", "keyboard-interactive").string("").string("");
    let (refused, patient) = ("Too many authentication attempts", "no login in time");
    type Attempt<'a> = (&'a str, &'a str, Box<dyn Fn(&mut Ssh) -> Answer + 'a>);
    let attempts: [Attempt<'_>; 8] = [
        ("none", refused, Box::new(|ssh| ssh.try_login(&Ssh::request("acme", "none")))),
        ("unknown", refused, Box::new(|ssh| ssh.try_login(&Ssh::request("acme", "hostbased").string("x")))),
        ("a strange key", refused, Box::new(|ssh| ssh.offer(KEYED, &other))),
        ("nobody's key", refused, Box::new(|ssh| ssh.offer("nobody", &own))),
        ("a wrong signature", refused, Box::new(|ssh| ssh.try_login(&wrong))),
        ("a password change", refused, Box::new(|ssh| ssh.try_login(&change))),
        (
            "a good key, only offered",
            "Too many authentication failures",
            Box::new(|ssh| ssh.offer(KEYED, &own)),
        ),
        // It is no refusal: only the time for a login ends it.
        ("questions", patient, Box::new(|ssh| ssh.try_login(&questions))),
    ];
    for (what, words, attempt) in attempts {
        let mut ssh = ready(scene);
        let mut count = 0;
        let last = loop {
            match attempt(&mut ssh) {
                Answer::Success => panic!("{what} was enough"),
                Answer::Closed(last) => break last,
                _ => count += 1,
            }
            assert!(words == patient || count <= 200, "{what} goes on");
        };
        // A connection that is cut takes its last words along when more has come from the client than was read.
        assert!(last.is_none_or(|last| last.contains(words)), "{what}");
        assert!(count > 0, "not even one attempt of {what}");
    }
}

#[test]
fn a_guesser_of_passwords_is_sent_away() {
    let scene = scene("");
    let bystander = scene.bystander();
    bystander.works_on_during(|| {
        let mut ssh = ready(&scene);
        let mut count = 0;
        while !matches!(ssh.password("acme", "a wrong password 7391"), Answer::Closed(_)) {
            count += 1;
            assert!(count < 20, "one may guess for ever");
        }
    });
    bystander.leave();
    assert!(!scene.gateway().log().contains("7391"), "a password is in the log");
    scene.unharmed();
}

#[test]
fn requests_with_lengths_that_lie() {
    let scene = scene(SHORT_GRACE);
    let bystander = scene.bystander();
    bystander.works_on();
    let memory = scene.memory();
    let whole = Ssh::request(KEYED, "publickey").byte(1).string("ssh-ed25519").string(key().blob());
    let interactive = Ssh::request("acme", "keyboard-interactive").string("").string("").0;
    bystander.works_on_during(|| lengths_that_lie(&scene, &[whole.string(key().sign(b"x")).0, interactive]));
    memory.grew_at_most(A_FEW_CONNECTIONS);
    // What hashing a password takes is the allocator's to keep, so this isn't measured.
    let password_login = Ssh::request("acme", "password").byte(0).string(password("acme")).0;
    bystander.works_on_during(|| {
        lengths_that_lie(&scene, &[password_login]);
        fields_without_end(&scene);
    });
    bystander.leave();
    scene.unharmed();
}

fn lengths_that_lie(scene: &Scene, logins: &[Vec<u8>]) {
    for login in logins {
        for at in 1..login.len().saturating_sub(4) {
            // Every length field is at one of these places, whatever else is.
            let length = u32::from_be_bytes(login[at..at + 4].try_into().unwrap());
            if length > 0x1000 {
                continue;
            }
            for lie in [u32::MAX, 0x7fff_ffff, length + 1] {
                let mut lying = login.clone();
                lying[at..at + 4].copy_from_slice(&lie.to_be_bytes());
                let mut ssh = ready(scene);
                let answer = ssh.try_login(&Message(lying));
                assert!(!matches!(answer, Answer::Success), "{lie} at {at}");
            }
        }
        for cut in 0..login.len() {
            let mut ssh = ready(scene);
            let answer = match cut {
                // An empty packet has no number.
                0 => continue,
                _ => ssh.try_login(&Message(login[..cut].to_vec())),
            };
            assert!(!matches!(answer, Answer::Success), "cut at {cut}");
        }
    }
}

/// Fields as long as a packet may be.
fn fields_without_end(scene: &Scene) {
    for at in 0..3 {
        let mut ssh = ready(scene);
        let field =
            |number: usize, text: &str| if at == number { "x".repeat(200_000) } else { text.to_owned() };
        let request = Message::new(msg::USERAUTH_REQUEST).string(field(0, "acme")).string("ssh-connection");
        is_refused(&ssh.try_login(&request.string(field(1, "password")).byte(0).string(field(2, "wrong"))));
    }
}

#[test]
fn a_login_counts_once() {
    let scene = scene("");
    let mut ssh = Ssh::logged_in(scene.port, "acme", &password("acme"));
    // A second one, as somebody else, is no login: the session stays acme's.
    drop(ssh.try_send(Ssh::request("globex", "password").byte(0).string(password("globex"))));
    let mut sftp = recgate_e2e::hostile::Sftp::ready(ssh);
    let folders = sftp.list("/");
    assert!(folders.contains(&"S20160607".to_owned()), "globex has no recording of that day: {folders:?}");
    scene.unharmed();
}
