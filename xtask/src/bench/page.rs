//! docs/benchmarks.md and its pictures.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::reasons::{Measure, Reasons};
use super::row::{self, About, Row};
use super::waiting::{self, Wait};
use crate::plot::{Axis, Bar, Bars, Unit};
use crate::report::{self, Table};
use crate::workspace::{read, root};
use crate::{Result, workspace};

struct Group {
    name: &'static str,
    title: &'static str,
    what: &'static str,
}

const GROUPS: &[Group] = &[
    Group {
        name: "files",
        title: "Local files",
        what: "Tables and small objects in a directory, beside the system's own calls, the crates `arrow-ipc` and \
               `cachekit-rs`.",
    },
    Group {
        name: "process",
        title: "In the process",
        what: "Hits beside bare `moka`, tables that are kept beside reading them again, and a Zipf mix (exponent 1) of \
               keys over a working set of twice the budget, beside `moka` in front of the same store and `foyer`'s \
               hybrid cache over a directory.",
    },
    Group {
        name: "network",
        title: "Redis and memcached",
        what: "Servers on the same machine, beside the bare clients `redis` and `memcache`. The server works on the \
               same processors.",
    },
    Group {
        name: "python",
        title: "Python programs",
        what: "What a Python program would use, in one long-lived interpreter and by its own clock; starting it and \
               loading the source is not counted.",
    },
];

/// The peers whose versions stand in `benches/Cargo.lock`.
const CRATES: &[&str] = &[
    "arrow-ipc",
    "cachekit-rs",
    "foyer",
    "memcache",
    "moka",
    "redis",
];

pub(super) fn write(about: &About, rows: &[Row], waits: &[Wait], reasons: &Reasons) -> Result<()> {
    let lock = read(&root().join("benches/Cargo.lock"))?;
    let docs = root().join("docs");
    for group in GROUPS {
        let bars = times(group, rows);
        bars.save(&docs.join(format!("plots/bench-{}.svg", group.name)))?;
    }
    memory(rows).save(&docs.join("plots/bench-memory.svg"))?;
    let text = page(about, rows, waits, reasons, &versions(&lock));
    workspace::write(&docs.join("benchmarks.md"), &text)
}

fn page(
    about: &About,
    rows: &[Row],
    waits: &[Wait],
    reasons: &Reasons,
    crates: &[(String, String)],
) -> String {
    let mut text = HEAD
        .replace("{cores}", &about.cores.to_string())
        .replace("{file_system}", &about.file_system)
        .replace("{table}", &report::bytes(about.table_bytes))
        .replace("{l1}", &report::bytes(about.l1_bytes))
        .replace("{crates}", &listed(crates))
        .replace("{packages}", &listed(&about.versions));
    for group in GROUPS {
        let _ = write!(
            text,
            "\n## {}\n\n{}\n\n![{}](plots/bench-{}.svg)\n\n{}",
            group.title,
            group.what,
            group.title,
            group.name,
            table(group, rows).markdown()
        );
    }
    let _ = write!(text, "\n{}", waiting::section(waits));
    let _ = write!(text, "\n{MEMORY}\n{}", sizes(rows).markdown());
    let _ = write!(text, "\n{BETTER}\n{}", better(rows, reasons));
    text
}

const HEAD: &str = "\
# Benchmarks

The same work beside what others would use for it. `cargo xtask bench` writes this page: do not edit it.

## How to read it

Both sides of a row do the same work in turns within one run of one program, so that whatever else the machine does
hits both; who goes first changes from round to round. *Times as fast* is the ratio of the medians, the peer's time by
ours: above 1 we are faster. Behind it is the middle half of the ratios of single rounds. Absolute times differ from
machine to machine and from day to day; the ratios much less.

Durability and verification are the same on both sides, and each row says which: where a peer keeps no hash, an xxh3 of
the same bytes is made beside it (`+ xxh3`), or ours is turned off. The rows that say otherwise show what ours costs beside a
peer that does less. *none*, *lz4* and *zstd 3* are compressions; *mapped* means that columns are used where the file is
mapped. Files are in the page cache.

## Where and how

{cores} cores, {file_system}. Tables of {table}: `lineitem` is that of TPC-H, `numeric` has 8 columns, `features` 64 of
floating-point numbers, `strings` six texts and a number, `mixed` numbers, texts and a category; the 200 columns are
numbers and, one in ten, short texts. Key mixes: objects of one size, twice as many as {l1} hold; get alone.

- `cargo xtask bench`: everything, and this page. It installs the Python packages into `target/bench-python`.
- `cargo xtask bench --quick`: smaller and shorter, on the terminal.
- `cargo xtask bench --only 'cachekit'`: the rows with that in their names. `--json`: the seconds of every round.
- `cargo xtask bench --only waiting`: what small gets wait beside large transfers.

Crates: {crates}. Python packages: {packages}.
";

const MEMORY: &str = "\
## Bytes stored and peak memory

Each side once more in a process of its own: the resident size at its highest above that before the work, with the
source already loaded. Pages of mapped files that were touched count on both sides, though the kernel takes them back when it needs
them. The servers' memory does not count.

![Peak memory](plots/bench-memory.svg)
";

const BETTER: &str = "\
## Where a peer is faster

Rows in which the peer is ahead in three of four rounds, or by more than a tenth in the median, stores fewer bytes, or
needs less memory, and why.
";

/// `foyer` 0.22.6, ...
fn listed(versions: &[(String, String)]) -> String {
    let each = versions
        .iter()
        .map(|(name, version)| format!("`{name}` {version}"));
    each.collect::<Vec<_>>().join(", ")
}

/// The versions of [`CRATES`] in a lock file.
fn versions(lock: &str) -> Vec<(String, String)> {
    let lock: toml::Table = lock.parse().unwrap_or_default();
    let packages = lock.get("package").and_then(toml::Value::as_array);
    let packages = packages.into_iter().flatten().filter_map(|package| {
        let text = |name: &str| Some(package.get(name)?.as_str()?.to_owned());
        Some((text("name")?, text("version")?))
    });
    packages
        .filter(|(name, _)| CRATES.contains(&name.as_str()))
        .collect()
}

fn of_group<'a>(group: &Group, rows: &'a [Row]) -> impl Iterator<Item = &'a Row> {
    let name = group.name;
    rows.iter().filter(move |row| row.group == name)
}

fn table(group: &Group, rows: &[Row]) -> Table {
    let with_hits = of_group(group, rows).any(|row| row.hit_ratio[0].is_some());
    let mut head = vec![
        "work",
        "peer",
        "ours",
        "the peer",
        "times as fast",
        "middle half",
        "durability",
        "verification",
    ];
    if with_hits {
        head.push("hits in the process, ours / peer");
    }
    let mut table = Table::new(&head);
    for row in of_group(group, rows) {
        let (low, high) = row.spread();
        let mut cells = vec![
            row.work.clone(),
            row.peer.clone(),
            row::seconds(row.ours()),
            row::seconds(row.theirs()),
            format!("**{}**", row::ratio(row.times_as_fast())),
            format!("{} – {}", row::ratio(low), row::ratio(high)),
            row.durability.clone(),
            row.verification.clone(),
        ];
        if with_hits {
            cells.push(row::both_shares(row.hit_ratio));
        }
        table.row(cells);
    }
    table
}

fn sizes(rows: &[Row]) -> Table {
    let mut table = Table::new(&["row", "memory, ours / peer", "stored, ours / peer"]);
    for row in rows {
        if row.memory[0].is_some() || row.stored[0].is_some() {
            table.row([
                row.name(),
                row::both_bytes(row.memory),
                row::both_bytes(row.stored),
            ]);
        }
    }
    table
}

/// One list entry a reason, with all rows that it is for.
fn better(rows: &[Row], reasons: &Reasons) -> String {
    let mut by_reason: BTreeMap<(usize, &str), Vec<String>> = BTreeMap::new();
    for row in rows {
        for (order, measure) in Measure::ALL.into_iter().enumerate() {
            if measure.is_worse(row) {
                let why = reasons
                    .of(row, measure)
                    .unwrap_or("No reason is known yet.");
                let line = format!("{}: {}", row.name(), measure.compared(row));
                by_reason.entry((order, why)).or_default().push(line);
            }
        }
    }
    if by_reason.is_empty() {
        return "None.\n".to_owned();
    }
    let mut text = String::new();
    for ((_, why), lines) in by_reason {
        let _ = writeln!(text, "- {why}");
        for line in lines {
            let _ = writeln!(text, "  - {line}");
        }
    }
    text
}

fn times(group: &Group, rows: &[Row]) -> Bars {
    let rows: Vec<&Row> = of_group(group, rows).collect();
    let peers: Vec<&str> = rows.iter().map(|row| first_word(&row.peer)).collect();
    let bars = rows.iter().zip(&peers).map(|(row, peer)| {
        let (low, high) = row.spread();
        Bar {
            label: label(row),
            value: row.times_as_fast(),
            low,
            high,
            colour: colour(&peers, peer),
        }
    });
    Bars {
        title: format!("{}: times as fast as the peer", group.title),
        note: "the peer's median time by ours, the same work in turns; whiskers: the middle half of the rounds".to_owned(),
        axis: ratio_axis("times as fast, logarithmic"),
        bars: bars.collect(),
        mark: Some((1.0, "as fast as the peer".to_owned())),
    }
}

/// Less is as good as this.
const LEAST_MEMORY: u64 = 1 << 20;

fn memory(rows: &[Row]) -> Bars {
    let rows: Vec<(&Row, f64)> = rows
        .iter()
        .filter_map(|row| {
            let [ours, theirs] = row.memory;
            Some((row, quotient(theirs?, ours?)))
        })
        .collect();
    let groups: Vec<&str> = rows.iter().map(|(row, _)| row.group.as_str()).collect();
    let bars = rows.iter().map(|&(row, value)| Bar {
        label: label(row),
        value,
        low: value,
        high: value,
        colour: colour(&groups, &row.group),
    });
    Bars {
        title: "Peak memory: how many times ours the peer needs".to_owned(),
        note: "resident memory above that before the work, of both sides at least 1 MiB; one colour a group".to_owned(),
        axis: ratio_axis("the peer's memory by ours, logarithmic"),
        bars: bars.collect(),
        mark: Some((1.0, "as much".to_owned())),
    }
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn quotient(theirs: u64, ours: u64) -> f64 {
    theirs.max(LEAST_MEMORY) as f64 / ours.max(LEAST_MEMORY) as f64
}

fn ratio_axis(label: &str) -> Axis {
    Axis {
        label: label.to_owned(),
        unit: Unit::Ratio,
        log: true,
    }
}

/// As long as there is room for beside a bar.
fn label(row: &Row) -> String {
    const LENGTH: usize = 52;
    let label = format!("{} / {}", row.work, row.peer);
    if label.chars().count() <= LENGTH {
        return label;
    }
    let start: String = label.chars().take(LENGTH - 1).collect();
    format!("{}…", start.trim_end())
}

fn first_word(text: &str) -> &str {
    text.split([' ', '.', '(', ',']).next().unwrap_or(text)
}

/// The number of `one` among the different ones of `all`, in their order.
fn colour(all: &[&str], one: &str) -> usize {
    let mut seen: Vec<&str> = Vec::new();
    for &other in all {
        if !seen.contains(&other) {
            seen.push(other);
        }
    }
    seen.iter().position(|&other| other == one).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::row::tests::row;
    use super::*;

    fn about() -> About {
        About {
            cores: 2,
            file_system: "ext4".to_owned(),
            table_bytes: 256 << 20,
            l1_bytes: 32 << 20,
            versions: vec![("polars".to_owned(), "2.1.0".to_owned())],
        }
    }

    #[test]
    fn the_page_has_every_row_and_says_why_peers_are_faster() {
        let reasons = "[[reason]]\nrow = 'files: slow*'\nof = 'time'\nwhy = 'It has to.'\n";
        let reasons = Reasons::parse(reasons).unwrap();
        let rows = [
            row("fast", &[(1.0, 2.0)]),
            row("slow", &[(2.0, 1.0)]),
            row("odd", &[(3.0, 1.0)]),
        ];
        let waits = [waiting::tests::wait("our get", 2.0)];
        let text = page(&about(), &rows, &waits, &reasons, &[]);
        assert!(text.contains("| Redis | our get | our put |"), "{text}");
        assert!(
            text.contains("2 cores, ext4. Tables of 256.0 MiB"),
            "{text}"
        );
        assert!(
            text.contains(
                "| fast | a peer | 1.00 s | 2.00 s | **2.00** | 2.00 – 2.00 | no fsync | off |"
            ),
            "{text}"
        );
        assert!(
            text.contains(
                "- It has to.\n  - files: slow / a peer: the peer is 2.00 times as fast\n"
            ),
            "{text}"
        );
        assert!(
            text.contains("- No reason is known yet.\n  - files: odd"),
            "{text}"
        );
        assert!(!text.contains('{'), "a placeholder is left");
    }

    #[test]
    fn a_page_without_slower_rows_says_so() {
        let reasons = Reasons::parse("").unwrap();
        assert!(better(&[row("fast", &[(1.0, 2.0)])], &reasons).contains("None"));
    }

    #[test]
    fn versions_come_from_the_lock_file() {
        let lock = "[[package]]\nname = 'moka'\nversion = '1.0.0'\n[[package]]\nname = 'other'\nversion = '2.0.0'\n";
        assert_eq!(versions(lock), [("moka".to_owned(), "1.0.0".to_owned())]);
        let lock = read(&root().join("benches/Cargo.lock")).unwrap();
        for name in CRATES {
            assert!(
                versions(&lock).iter().any(|(known, _)| known == name),
                "{name}"
            );
        }
    }

    #[test]
    fn memory_is_compared_from_one_mebibyte_on() {
        let mut small = row("put", &[(1.0, 1.0)]);
        small.memory = [Some(0), Some(8 << 20)];
        let bars = memory(&[small, row("no memory", &[(1.0, 1.0)])]).bars;
        assert_eq!(bars.iter().map(|bar| bar.value).collect::<Vec<_>>(), [8.0]);
    }

    #[test]
    fn labels_fit_beside_their_bars() {
        let long = row(&"work ".repeat(20), &[(1.0, 1.0)]);
        assert_eq!(label(&long).chars().count(), 52);
        assert!(label(&long).ends_with('…'));
    }

    #[test]
    fn a_peer_has_one_colour() {
        let peers = ["moka", "foyer", "moka"];
        assert_eq!(peers.map(|peer| colour(&peers, peer)), [0, 1, 0]);
    }
}
