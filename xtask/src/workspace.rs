//! Where the workspace is and what `cargo metadata` says of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::tools;

/// The top directory of the checkout.
pub(crate) fn root() -> PathBuf {
    // Cargo sets this when it runs us; the compiled-in path serves a binary started by hand.
    let manifest = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&manifest).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// The part of `cargo metadata` that is read here.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    /// Members of the workspace.
    pub(crate) packages: Vec<Package>,
}

/// One package.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    /// Name in the manifest.
    pub(crate) name: String,
    /// Path of the manifest.
    pub(crate) manifest_path: PathBuf,
    /// Dependencies of every kind.
    pub(crate) dependencies: Vec<Dependency>,
    /// Features with what they switch on.
    pub(crate) features: BTreeMap<String, Vec<String>>,
    /// The oldest compiler it is made for.
    pub(crate) rust_version: Option<String>,
    /// `Some([])` for a package that is never published.
    pub(crate) publish: Option<Vec<String>>,
}

impl Package {
    /// Whether the package may go to a registry.
    pub(crate) fn published(&self) -> bool {
        self.publish.as_ref().is_none_or(|registries| !registries.is_empty())
    }
}

/// One dependency of a package.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    /// Name of the package depended on.
    pub(crate) name: String,
    /// Version requirement; `*` for one given by path alone.
    pub(crate) req: String,
    /// `None` for a normal dependency, else `dev` or `build`.
    pub(crate) kind: Option<String>,
    /// Taken only with a feature.
    pub(crate) optional: bool,
    /// Directory, for a dependency inside the checkout.
    pub(crate) path: Option<PathBuf>,
}

impl Dependency {
    /// Used by tests, examples and benches only.
    pub(crate) fn is_dev(&self) -> bool {
        self.kind.as_deref() == Some("dev")
    }
}

/// The members outside `kits/` that users can depend on.
pub(crate) fn below_kits(metadata: &Metadata) -> impl Iterator<Item = &Package> {
    let kits = root().join("kits");
    metadata.packages.iter().filter(move |p| p.published() && !p.manifest_path.starts_with(&kits))
}

/// Runs `cargo metadata` on the workspace.
pub(crate) fn metadata() -> Result<Metadata> {
    let json = tools::output(tools::cargo().args(["metadata", "--format-version=1", "--no-deps"]))?;
    serde_json::from_str(&json).context("cargo metadata printed unexpected JSON")
}

/// The features of each member that a build of the whole workspace switches on.
pub(crate) fn features_on() -> Result<BTreeMap<String, Vec<String>>> {
    #[derive(Deserialize)]
    struct Resolved {
        packages: Vec<Identity>,
        resolve: Resolve,
        workspace_members: Vec<String>,
    }
    #[derive(Deserialize)]
    struct Identity {
        id: String,
        name: String,
    }
    #[derive(Deserialize)]
    struct Resolve {
        nodes: Vec<Node>,
    }
    #[derive(Deserialize)]
    struct Node {
        id: String,
        features: Vec<String>,
    }
    let json = tools::output(tools::cargo().args(["metadata", "--format-version=1"]))?;
    let all: Resolved = serde_json::from_str(&json).context("cargo metadata printed unexpected JSON")?;
    let names: BTreeMap<&str, &str> = all.packages.iter().map(|p| (p.id.as_str(), p.name.as_str())).collect();
    let members = all.resolve.nodes.into_iter().filter(|node| all.workspace_members.contains(&node.id));
    Ok(members.filter_map(|node| Some(((*names.get(node.id.as_str())?).to_owned(), node.features))).collect())
}
