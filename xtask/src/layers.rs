//! The arrows between crates (ARCHITECTURE.md section 2).

use anyhow::{Result, bail};

use crate::workspace::{Metadata, Package, metadata};

/// A crate of the workspace, its level, and the outside crates it may not do without.
struct Layer {
    name: &'static str,
    level: u8,
    external: Option<&'static [&'static str]>,
}

const fn core(level: u8, name: &'static str, external: &'static [&'static str]) -> Layer {
    Layer { name, level, external: Some(external) }
}

const fn kit(level: u8, name: &'static str) -> Layer {
    Layer { name, level, external: None }
}

/// The first level of `kits/`: from here on default features may be non-empty.
const KITS: u8 = 3;

/// A crate depends on crates of a lower level only. `iscsi-connect` stands below the kits that use it.
/// What a core takes from outside is listed unless a feature switches it on.
const LAYERS: &[Layer] = &[
    core(0, "iscsi-pdu", &["bytes", "nom", "crc32c"]),
    core(0, "scsi-cmd", &["nom"]),
    core(0, "iwarp", &["bytes", "crc32c"]),
    core(
        1,
        "iscsi-login",
        &["bytes", "md-5", "sha1", "sha2", "sha3", "subtle", "zeroize", "base64", "stringprep"],
    ),
    core(1, "datamover", &["bytes", "async-trait"]),
    core(1, "iscsi-discovery", &["bytes", "nom"]),
    core(2, "iscsi-tcp", &["bytes", "async-trait"]),
    core(2, "iser-rdma", &["bytes", "nom"]),
    core(2, "iscsi-session", &["bytes"]),
    kit(KITS, "iscsi-connect"),
    kit(KITS, "iscsi-conform"),
    kit(4, "iscsi-target"),
    kit(4, "iscsi-initiator"),
    kit(4, "iscsi-fc-gateway"),
];

/// Arrows that point down and are forbidden all the same, with the reason.
const FORBIDDEN: &[(&str, &str, &str)] =
    &[("iscsi-session", "scsi-cmd", "a CDB is opaque bytes to the session engine")];

/// Unpublished members that may depend on anything.
const TOOLS: &[&str] = &["iscsi-sim", "instructions", "xtask"];

/// Checks the workspace and lists every arrow that is wrong.
pub(crate) fn run() -> Result<()> {
    let metadata = metadata()?;
    let faults = faults(&metadata);
    if faults.is_empty() {
        println!("layers: {} crates, every arrow points down", metadata.packages.len());
        return Ok(());
    }
    bail!("{} wrong arrows\n  {}", faults.len(), faults.join("\n  "));
}

fn layer(name: &str) -> Option<&'static Layer> {
    LAYERS.iter().find(|layer| layer.name == name)
}

fn faults(metadata: &Metadata) -> Vec<String> {
    metadata.packages.iter().flat_map(package_faults).collect()
}

fn package_faults(package: &Package) -> Vec<String> {
    let name = &package.name;
    if TOOLS.contains(&name.as_str()) {
        return if package.published() { vec![format!("{name}: lacks `publish = false`")] } else { vec![] };
    }
    let Some(from) = layer(name) else {
        return vec![format!("{name}: has no row in the table of levels (xtask/src/layers.rs)")];
    };
    let mut faults = Vec::new();
    if from.level < KITS && package.features.get("default").is_some_and(|on| !on.is_empty()) {
        faults.push(format!("{name}: default features below kits/ are empty"));
    }
    for dep in &package.dependencies {
        let to = &dep.name;
        let inside = dep.path.is_some();
        let below = layer(to).is_some_and(|l| l.level < from.level);
        if dep.is_dev() {
            // Cargo drops a development dependency without a version when it publishes; with one, two
            // crates that test each other could never be published at all.
            if inside && !below && dep.req != "*" {
                faults.push(format!("{name} -> {to}: give a development dependency upwards by path alone"));
            }
        } else if inside && !below {
            faults.push(format!("{name} -> {to}: does not point down"));
        } else if let Some((.., why)) = FORBIDDEN.iter().find(|(f, t, _)| f == name && t == to) {
            faults.push(format!("{name} -> {to}: {why}"));
        } else if let (false, false, Some(allowed)) = (inside, dep.optional, from.external)
            && !allowed.contains(&to.as_str())
        {
            faults.push(format!("{name} -> {to}: a core takes only {}", allowed.join(", ")));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, rest: &str) -> Vec<String> {
        let json = format!(
            r#"{{"packages":[{{"name":"{name}","publish":null,"manifest_path":"/x/Cargo.toml","rust_version":null,{rest}}}]}}"#
        );
        faults(&serde_json::from_str(&json).unwrap())
    }

    fn dep(name: &str, inside: bool, req: &str, kind: &str) -> String {
        let path = if inside { r#""/x""# } else { "null" };
        format!(
            r#""features":{{}},"dependencies":[{{"name":"{name}","req":"{req}","kind":{kind},"optional":false,"path":{path}}}]"#
        )
    }

    #[test]
    fn down_is_right_and_up_or_sideways_is_not() {
        assert_eq!(check("iscsi-tcp", &dep("datamover", true, "^0.1", "null")), [""; 0]);
        assert_eq!(check("datamover", &dep("iscsi-tcp", true, "^0.1", "null")).len(), 1);
        assert_eq!(check("iscsi-tcp", &dep("iser-rdma", true, "^0.1", "null")).len(), 1);
        assert_eq!(check("iscsi-session", &dep("xtask", true, "^0.1", "\"build\"")).len(), 1);
    }

    #[test]
    fn the_session_does_not_know_scsi() {
        assert_eq!(
            check("iscsi-session", &dep("scsi-cmd", true, "^0.1", "null")),
            ["iscsi-session -> scsi-cmd: a CDB is opaque bytes to the session engine"]
        );
    }

    #[test]
    fn tests_may_look_up_when_the_path_alone_names_the_crate() {
        assert_eq!(check("iscsi-initiator", &dep("iscsi-target", true, "*", "\"dev\"")), [""; 0]);
        assert_eq!(check("iscsi-initiator", &dep("iscsi-target", true, "^0.1", "\"dev\"")).len(), 1);
        assert_eq!(check("iscsi-initiator", &dep("iscsi-pdu", true, "^0.1", "\"dev\"")), [""; 0]);
    }

    #[test]
    fn cores_take_little_from_outside_and_switch_nothing_on() {
        assert_eq!(check("iscsi-pdu", &dep("bytes", false, "^1", "null")), [""; 0]);
        assert_eq!(check("iscsi-pdu", &dep("regex", false, "^1", "null")).len(), 1);
        assert_eq!(check("iscsi-target", &dep("regex", false, "^1", "null")), [""; 0]);
        let features = r#""features":{"default":["std"],"std":[]},"dependencies":[]"#;
        assert_eq!(check("iscsi-pdu", features).len(), 1);
        assert_eq!(check("iscsi-target", features), [""; 0]);
    }

    #[test]
    fn a_crate_without_a_level_is_a_fault() {
        assert_eq!(check("newcomer", r#""features":{},"dependencies":[]"#).len(), 1);
        assert_eq!(check("xtask", r#""features":{},"dependencies":[]"#), ["xtask: lacks `publish = false`"]);
    }
}
