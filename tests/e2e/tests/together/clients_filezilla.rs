//! FileZilla, driven on a screen that nobody sees.

use recgate_e2e::{Existing, Served, assert_mirrors, untouched};

#[test]
fn downloads_the_whole_tree_and_nothing_the_second_time() {
    let served = Served::new();
    for login in [served.fixture.login("acme"), served.by_key("globex/manager")] {
        let originals = served.originals_of(&login);
        let mirror = served.folder_for(&login);
        let name = format!("filezilla-{}", login.user.replace('/', "-"));
        let client = login.filezilla(&mirror, "/", Existing::Overwrite);
        client.download_all();
        client.wait_for_log(originals.len(), "File transfer successful");
        client.screenshot(&name);
        assert_mirrors(&mirror, originals);
        drop(client);

        let before = untouched(&mirror);
        let client = login.filezilla(&mirror, "/", Existing::OverwriteIfDifferent);
        client.download_all();
        client.wait_for_log(originals.len(), "Skipping download");
        assert!(!client.log().contains("File transfer successful"), "{}", client.log());
        assert_eq!(untouched(&mirror), before);
    }
}

#[test]
fn lists_a_folder_with_exact_sizes() {
    let served = Served::new();
    let login = served.by_key("acme/manager");
    let mirror = served.folder_for(&login);
    let client = login.filezilla(&mirror, "/S20160606", Existing::Overwrite);
    client.download_all();
    let originals = served.originals_of(&login);
    let of_folder = originals.iter().filter_map(|(path, it)| Some((path.strip_prefix("S20160606/")?, it)));
    let of_folder: recgate_e2e::Originals =
        of_folder.map(|(name, original)| (name.to_owned(), original.clone())).collect();
    client.wait_for_log(of_folder.len(), "File transfer successful");
    for original in of_folder.values() {
        let told = client.log().lines().any(|line| {
            // It puts separators between thousands.
            let digits: String = line.replace(',', "");
            digits.contains(&format!("transferred {} bytes", original.bytes.len()))
        });
        assert!(told, "{} bytes: {}", original.bytes.len(), client.log());
    }
    client.screenshot("filezilla-folder");
    assert_mirrors(&mirror, &of_folder);
}
