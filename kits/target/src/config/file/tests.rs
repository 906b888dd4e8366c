use super::*;

const GOOD: &str = r#"
portals = ["127.0.0.1:3261", "::1"]   # two
transport = "rdma,tcp"
error-recovery-level = 2
[[target]]
iqn = "iqn.2026-01.org.example:disk0"
alias = "first"
allow = ["iqn.2026-01.org.example:host1"]

[target.chap]
user = "alice"
secret = "correct horse battery"
mutual-user = "disk0"
mutual-secret = "another long secret"

[[target.lun]]
path = "/srv/disk0.img"
create = "10 GiB"

[[target.lun]]
lun = 7
ram = "1G"
block-size = 4096
read-only = true
"#;

#[test]
fn all_keys() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config.portals, [SocketAddr::from(([127, 0, 0, 1], 3261)), "[::1]:3260".parse().unwrap()]);
    assert_eq!(config.transport, "rdma,tcp".parse().unwrap());
    assert_eq!(config.error_recovery_level, Some(2));
    let target = &config.targets[0];
    assert_eq!(target.name.to_string(), "iqn.2026-01.org.example:disk0");
    assert_eq!(target.alias.as_deref(), Some("first"));
    assert_eq!(target.allow.len(), 1);
    let chap = target.chap.as_ref().unwrap();
    assert!(chap.account("alice").is_some() && chap.account("alic").is_none() && chap.is_mutual());
    assert_eq!(
        target.luns[0].backing,
        Backing::Path { path: "/srv/disk0.img".into(), create: Some(10 << 30) }
    );
    assert_eq!(target.luns[1].lun, Some(7));
    assert_eq!(target.luns[1].block_size, 4096);
    assert!(target.luns[1].read_only);
}

/// Issue: configuration errors name the line and the key.
#[test]
fn mistakes_name_line_and_key() {
    let cases: &[(&str, &str, usize, &str, &str)] = &[
        // (replace, by, line, key, says)
        ("transport = \"rdma,tcp\"", "transport = \"pigeon\"", 3, "transport", "pigeon"),
        ("error-recovery-level = 2", "error-recovery-level = 3", 4, "error-recovery-level", "0, 1 or 2"),
        ("portals = [\"127.0.0.1:3261\", \"::1\"]", "portals = [\"host:1\"]", 2, "portals", "'host:1'"),
        ("iqn = \"iqn.2026-01.org.example:disk0\"", "iqn = \"disk0\"", 6, "iqn", "'disk0'"),
        ("alias = \"first\"", "alais = \"first\"", 7, "", "alais"),
        ("allow = [\"iqn.2026-01.org.example:host1\"]", "allow = [\"host 1\"]", 8, "allow", "host 1"),
        ("secret = \"correct horse battery\"", "", 10, "secret", "missing"),
        ("mutual-secret = \"another long secret\"", "", 13, "mutual-user", "needs mutual-secret"),
        ("another long secret", "correct horse battery", 10, "chap", "both directions"),
        ("create = \"10 GiB\"", "create = \"ten\"", 18, "create", "'ten' is no size"),
        ("ram = \"1G\"", "ram = \"1G\"\nnull = \"1G\"", 20, "lun", "exactly one"),
        ("block-size = 4096", "block-size = 520", 20, "lun", "512 or 4096"),
        ("lun = 7", "lun = \"seven\"", 21, "", "string"),
    ];
    for (replace, by, line, key, says) in cases {
        let text = GOOD.replacen(replace, by, 1);
        assert_ne!(text, GOOD, "{replace}");
        let error = parse(&text).unwrap_err();
        assert_eq!((error.line, error.key), (*line, *key), "{replace}: {error}");
        assert!(error.what.contains(says), "{replace}: {error}");
    }
}

#[test]
fn two_targets_or_units_of_one_name() {
    let twice = format!(
        "{GOOD}\n[[target]]\niqn = \"iqn.2026-01.org.example:disk0\"\n[[target.lun]]\nram = \"1M\"\n"
    );
    let error = parse(&twice).unwrap_err();
    assert_eq!((error.line, error.key), (27, "iqn"));
    let twice = format!("{GOOD}\n[[target.lun]]\nlun = 7\nram = \"1M\"\n");
    let error = parse(&twice).unwrap_err();
    assert_eq!((error.line, error.key), (26, "lun"));
}

#[test]
fn a_secret_file_without_its_newline() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    std::fs::write(&path, "correct horse battery\n").unwrap();
    assert_eq!(read_secret(&path).unwrap(), "correct horse battery");
}
