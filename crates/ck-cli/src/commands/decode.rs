use std::path::Path;
use std::sync::Arc;

use ck_cache::{Contents, Verification, read_entry};
use ck_codec::bytestorage;
use ck_core::block_on;

use crate::args::DecodeArgs;
use crate::failure::Failure;
use crate::local_file::LocalFile;
use crate::{document, human, output, preview};

/// What a file store puts before an entry: `"CK"`, version 1, 11 bytes more.
const FILE_ENTRY_MAGIC: &[u8] = b"CK\x01";
const FILE_ENTRY_HEADER_BYTES: u64 = 14;

/// `ck decode FILE`
pub(crate) fn run(args: &DecodeArgs) -> Result<(), Failure> {
    let mut file = LocalFile::open(&args.file)?;
    if file.head::<3>()? == FILE_ENTRY_MAGIC {
        file = file.skip(FILE_ENTRY_HEADER_BYTES);
    }
    let named = |failure| named(failure, &args.file);
    let contents = block_on(read_entry(Arc::new(file), Verification::OnTouch));
    match contents.map_err(|error| named(error.into()))? {
        Contents::MessagePack(document) => {
            let value = bytestorage::to_json(&document).map_err(|error| named(error.into()))?;
            document::write_json(args.output.as_deref(), value)
        }
        Contents::Bytes { serializer, bytes } => match &args.output {
            None => preview::print_bytes(bytes.len(), Some(&serializer)),
            Some(path) => output::write_bytes(path, &bytes),
        },
        Contents::Table(table) => match &args.output {
            None => {
                let first = table.rows(0..table.num_rows().min(preview::ROWS))?;
                let first = block_on(first.read_all()).map_err(|error| named(error.into()))?;
                preview::print(table.schema(), &first, table.num_rows())
            }
            Some(path) => {
                let batches = table.batches();
                let rows =
                    output::write(path, &table.schema(), batches, &mut false).map_err(named)?;
                if path.as_os_str() != "-" {
                    eprintln!(
                        "wrote {}: {}",
                        path.display(),
                        human::count(rows, "row", "rows")
                    );
                }
                Ok(())
            }
        },
    }
}

/// Says which file it is about.
fn named(failure: Failure, path: &Path) -> Failure {
    match failure {
        Failure::Told(status, message) => Failure::new(
            status,
            format_args!("cannot decode {}: {message}", path.display()),
        ),
        Failure::BrokenPipe => Failure::BrokenPipe,
    }
}
