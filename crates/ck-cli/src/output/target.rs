use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Stdout, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::failure::Failure;

/// Where output goes.
#[derive(Debug)]
pub(crate) struct Target {
    path: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// A new file that gets its name when it is complete.
    Aside(NamedTempFile),
    /// A device or a pipe: what is written has left.
    Device(File),
    Stdout(Stdout),
}

impl Target {
    /// `-` is standard output.
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        let cannot = |error: io::Error| {
            Failure::other(format_args!("cannot write {}: {error}", path.display()))
        };
        let kind = if path.as_os_str() == "-" {
            Kind::Stdout(io::stdout())
        } else if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            Kind::Device(OpenOptions::new().write(true).open(path).map_err(cannot)?)
        } else {
            let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
            let aside = tempfile::Builder::new()
                .prefix(".ck-")
                .suffix(".tmp")
                // What the user's umask leaves of it, as for any new file.
                .permissions(Permissions::from_mode(0o666))
                .tempfile_in(dir.unwrap_or(Path::new(".")))
                .map_err(cannot)?;
            Kind::Aside(aside)
        };
        Ok(Self {
            path: path.to_owned(),
            kind,
        })
    }

    /// Whether somebody else may already have what was written so far.
    pub(crate) fn is_shared(&self) -> bool {
        !matches!(self.kind, Kind::Aside(_))
    }

    /// Makes the output complete; gives the file its name.
    pub(crate) fn publish(mut self) -> Result<(), Failure> {
        self.flush().map_err(|error| self.failure(error))?;
        if let Kind::Aside(aside) = self.kind {
            aside.persist(&self.path).map_err(|error| {
                Failure::other(format_args!(
                    "cannot write {}: {}",
                    self.path.display(),
                    error.error
                ))
            })?;
        }
        Ok(())
    }

    pub(crate) fn failure(&self, error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => error.into(),
            _ => Failure::other(format_args!(
                "cannot write {}: {error}",
                self.path.display()
            )),
        }
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.kind {
            Kind::Aside(file) => file.write(bytes),
            Kind::Device(file) => file.write(bytes),
            Kind::Stdout(stdout) => stdout.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.kind {
            Kind::Aside(file) => file.flush(),
            Kind::Device(file) => file.flush(),
            Kind::Stdout(stdout) => stdout.flush(),
        }
    }
}
