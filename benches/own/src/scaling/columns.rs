//! Tables of growing width.

use std::fs::File;
use std::hint::black_box;
use std::io::{BufReader, BufWriter};
use std::path::PathBuf;
use std::time::Duration;

use arrow_ipc::reader::FileReader;
use arrow_ipc::writer::FileWriter;
use ck_cache::blocking::{Cache, CachedTable};
use ck_cache::{Compression, PutOptions, Table};
use own::stores::{self, Kind, Store};
use own::{Result, tables};

use crate::suite::{Suite, medians, time};
use crate::values;

const COLUMNS: [usize; 5] = [1, 10, 100, 1_000, 10_000];

/// Rows of the tables that grow in width alone.
const ROWS: usize = 128;

pub(crate) fn run(suite: &mut Suite) -> Result<()> {
    let bytes = if suite.quick { 16 << 20 } else { 64 << 20 };
    for columns in COLUMNS {
        measure(suite, "columns", columns, bytes / 8 / columns)?;
    }
    for columns in COLUMNS {
        measure(suite, "width", columns, ROWS)?;
    }
    Ok(())
}

/// The file store, and its control: bare Arrow files, which nobody verifies.
fn measure(suite: &mut Suite, chart: &str, columns: usize, rows: usize) -> Result<()> {
    let (store, dir) = (Store::start(Kind::File, 0)?, stores::directory()?);
    let mut stored = Stored(store.cache());
    let mut file = Ipc(dir.path().join("table.arrow"));
    let table = tables::of_columns(columns, rows)?;
    for (prefix, place) in [("", &mut stored as &mut dyn Place), ("bare ", &mut file)] {
        let times = medians(200, Duration::from_secs(1), || {
            place.clear()?;
            Ok([
                time(|| place.put(&table))?,
                time(|| place.open())?,
                time(|| place.get(None))?,
                time(|| place.get(Some(columns / 2)))?,
            ])
        })?;
        let series = ["put", "open", "get", "get of one column"];
        for (series, seconds) in series.into_iter().zip(times) {
            let x = columns as f64;
            suite.note(chart, &format!("{prefix}{series}"), x, x, seconds);
        }
    }
    Ok(())
}

/// What has one table.
trait Place {
    fn clear(&mut self) -> Result<()>;
    fn put(&mut self, table: &Table) -> Result<()>;
    fn open(&mut self) -> Result<()>;
    /// Reads one column, or all.
    fn get(&mut self, column: Option<usize>) -> Result<()>;
}

struct Stored(Cache);

impl Stored {
    fn table(&self) -> Result<CachedTable> {
        Ok(self.0.open_table("table")?.ok_or("the entry is gone")?)
    }
}

impl Place for Stored {
    fn clear(&mut self) -> Result<()> {
        self.0.remove("table")?;
        Ok(())
    }

    fn put(&mut self, table: &Table) -> Result<()> {
        let options = PutOptions::new().with_compression(Compression::None);
        values::put(&self.0, table, &options)
    }

    fn open(&mut self) -> Result<()> {
        black_box(self.table()?);
        Ok(())
    }

    fn get(&mut self, column: Option<usize>) -> Result<()> {
        let mut table = self.table()?;
        if let Some(column) = column {
            table = table.project(&[column])?;
        }
        for batch in table.batches() {
            black_box(batch?);
        }
        Ok(())
    }
}

/// An Arrow file with no store around.
struct Ipc(PathBuf);

impl Ipc {
    fn reader(&self, column: Option<usize>) -> Result<FileReader<BufReader<File>>> {
        let file = BufReader::new(File::open(&self.0)?);
        Ok(FileReader::try_new(
            file,
            column.map(|column| vec![column]),
        )?)
    }
}

impl Place for Ipc {
    fn clear(&mut self) -> Result<()> {
        let _ = std::fs::remove_file(&self.0);
        Ok(())
    }

    fn put(&mut self, table: &Table) -> Result<()> {
        let file = BufWriter::new(File::create(&self.0)?);
        let mut writer = FileWriter::try_new(file, table.schema())?;
        for batch in table.batches() {
            writer.write(batch)?;
        }
        Ok(writer.finish()?)
    }

    fn open(&mut self) -> Result<()> {
        black_box(self.reader(None)?);
        Ok(())
    }

    fn get(&mut self, column: Option<usize>) -> Result<()> {
        for batch in self.reader(column)? {
            black_box(batch?);
        }
        Ok(())
    }
}
