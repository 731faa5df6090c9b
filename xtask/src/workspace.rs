use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::Result;
use crate::cmd::Cmd;

/// The root of the workspace: the directory that holds `xtask/`.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    let dir =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    root().join(dir)
}

pub(crate) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    let dir = path.parent().unwrap_or(path);
    fs::create_dir_all(dir)
        .and_then(|()| fs::write(path, text))
        .map_err(|error| format!("{}: {error}", path.display()))
}

/// All files under `dir`, in order; none when there is no such directory.
pub(crate) fn files_under(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    if !dir.is_dir() {
        return Ok(files);
    }
    let entries = fs::read_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    for entry in entries {
        let path = entry
            .map_err(|error| format!("{}: {error}", dir.display()))?
            .path();
        if path.is_dir() {
            files.extend(files_under(&path)?);
        } else {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// What cargo knows of the workspace and of everything it depends on, on this platform.
pub(crate) struct Metadata {
    /// The packages of the workspace.
    pub(crate) members: Vec<Package>,
    /// Every other package.
    pub(crate) foreign: Vec<Package>,
}

pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) license: Option<String>,
    /// `None` for a path.
    pub(crate) source: Option<String>,
    pub(crate) dir: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
    /// Without `default`.
    pub(crate) features: Vec<String>,
    /// Whether it has a library.
    pub(crate) is_library: bool,
}

pub(crate) struct Dependency {
    pub(crate) name: String,
    /// Whether only tests, examples and benches see it.
    pub(crate) dev: bool,
    /// Whether only a feature brings it.
    pub(crate) optional: bool,
}

impl Metadata {
    pub(crate) fn load() -> Result<Self> {
        let host = Cmd::new("rustc").arg("-vV").output()?;
        let host = host
            .lines()
            .find_map(|line| line.strip_prefix("host: "))
            .unwrap_or_default();
        let json = Cmd::cargo()
            .args([
                "metadata",
                "--format-version",
                "1",
                "--filter-platform",
                host,
            ])
            .output()?;
        let json: Value =
            serde_json::from_str(&json).map_err(|e| format!("cargo metadata: {e}"))?;
        Self::parse(&json).ok_or_else(|| "cargo metadata: not the expected shape".to_owned())
    }

    fn parse(json: &Value) -> Option<Self> {
        let ids = |value: &Value| -> Option<Vec<String>> {
            value
                .as_array()?
                .iter()
                .map(|id| Some(id.as_str()?.to_owned()))
                .collect()
        };
        let members = ids(&json["workspace_members"])?;
        let resolved: Vec<&str> = json["resolve"]["nodes"]
            .as_array()?
            .iter()
            .filter_map(|node| node["id"].as_str())
            .collect();
        let mut metadata = Self {
            members: Vec::new(),
            foreign: Vec::new(),
        };
        for package in json["packages"].as_array()? {
            let id = package["id"].as_str()?;
            if members.iter().any(|member| member == id) {
                metadata.members.push(Package::parse(package)?);
            } else if resolved.contains(&id) {
                metadata.foreign.push(Package::parse(package)?);
            }
        }
        metadata.members.sort_by(|a, b| a.name.cmp(&b.name));
        Some(metadata)
    }

    /// The library crates of the project, for others to use.
    pub(crate) fn libraries(&self) -> impl Iterator<Item = &Package> {
        let is_ours = |package: &&Package| package.is_library && package.name.starts_with("ck-");
        self.members.iter().filter(is_ours)
    }
}

impl Package {
    fn parse(json: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let has_kind = |target: &Value, kind: &str| {
            target["kind"]
                .as_array()
                .is_some_and(|kinds| kinds.iter().any(|k| k == kind))
        };
        let dependency = |json: &Value| {
            Some(Dependency {
                name: text(&json["name"])?,
                dev: json["kind"] == "dev",
                optional: json["optional"] == true,
            })
        };
        Some(Self {
            name: text(&json["name"])?,
            version: text(&json["version"])?,
            license: text(&json["license"]),
            source: text(&json["source"]),
            dir: Path::new(json["manifest_path"].as_str()?)
                .parent()?
                .to_owned(),
            dependencies: json["dependencies"]
                .as_array()?
                .iter()
                .filter_map(dependency)
                .collect(),
            features: json["features"]
                .as_object()?
                .keys()
                .filter(|name| *name != "default")
                .cloned()
                .collect(),
            is_library: json["targets"]
                .as_array()?
                .iter()
                .any(|target| has_kind(target, "lib")),
        })
    }
}
