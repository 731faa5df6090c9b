//! `docs/memory.md`: the text is that of this file, the figures are those of the runs.

use super::ceilings::{Ceiling, Ceilings, show};
use super::pictures::{PICTURES, SOURCES, STORES};
use super::record::{Record, Run};
use crate::Result;
use crate::report::{self, Table};
use crate::workspace::{root, write as write_file};

/// Operations of the matrix, and codecs, in the order of tables.
const OPS: [&str; 6] = ["put", "batches", "whole", "project", "rows", "verify"];
const CODECS: [&str; 3] = ["none", "lz4", "zstd"];

const HEAD: &str = "\
# Memory

What each path of the library needs beyond its source, measured. `cargo xtask memtest` measures it, holds every figure
against the ceilings in [`xtask/ceilings.toml`](../xtask/ceilings.toml), each with its reason, and fails when one is
passed or when a peak grows with the size of the table. `--report` writes this page; with `--full` it has
the whole matrix and other systems, without it a diagonal: every store, operation, codec and source, not all at once.

## How it is measured

- Every figure is that of a process of its own. A put starts with the table in memory, a read with nothing; code,
  connections and threads that stay for good are there before, from a small table. Servers are other processes.
- **heap**: what the program's allocator was asked for at most, exact. C libraries (zstd) allocate beside it.
- **rss**: the resident size, the kernel's own high-water mark. Mapped files count as far as they are resident.
- **anon**: its part that is heap and stacks, sampled every 2 ms. No other process can have these pages.
- **beyond**, **rss_beyond**, **anon_beyond**: heap, rss and anon beyond 1.05 times the table that was asked for (a load:
  once; tables through the process, one after the other: twice).
- **left**: what is resident after the work, and was not before; **live**: what is allocated then. That is half a second
  later (`*-churn-*` of the matrix and `l1-churn-*-none`: three seconds, `gets-*`: five), or as soon as less than 1 MiB is
  left.
- All count from what stood before the work, so a table that is the source does not count.
- Sources: *numeric* (eight columns), *strings*, *views* (text in views), *nested* (lists of structs, structs with text,
  nulls), *dictionary* (50,000 and five categories), *skewed* (a run of rows a hundred times as wide as the others).
- Reads compare what they get with checksums of what was put, column by column.
- Peaks hardly depend on the machine or on what else it does; durations do.
- For each kind of check there is a stage that must fail it (`selftest-*`), or the run fails.
";

const COMMANDS: &str = "\
## Commands

| command | what it measures |
| --- | --- |
| `cargo xtask memtest --quick` | a diagonal through the matrix and most other stages, 64 and 256 MiB; with `--dev` part of `.ci/run` |
| `cargo xtask memtest` | the same with 1 GiB, and the stages that take longest |
| `cargo xtask memtest --full` | the whole matrix, and other systems |
| `cargo xtask memtest --huge` | 4 GiB as well, with any of these |
| `cargo xtask memtest --case 'redis-*-zstd-*'` | the cases with such names |
| `cargo xtask memtest --case put --json` | figures and memory over time as lines of JSON |
| `cargo xtask memtest --full --report` | this page, from a run of everything |
";

/// Writes the page and its pictures.
pub(super) fn write(record: &Record, ceilings: &Ceilings) -> Result<()> {
    let docs = root().join("docs");
    let mut text = format!("{HEAD}\n{}\n", headline(record));
    text.push_str(&format!("## At a glance\n\n{}\n", glance(record, "")));
    let encrypted = glance(record, "-encrypted");
    text.push_str(&format!("### Encrypted\n\n{encrypted}\n"));
    text.push_str(
        "## Paths\n\nLZ4 is left out of the pictures: it takes what zstd does, or a little more, where batches stay large.\n\n",
    );
    for picture in PICTURES {
        let drawn = picture.draw(record, ceilings, &docs.join("plots"))?;
        if drawn.is_empty() {
            continue;
        }
        text.push_str(&format!("### {}\n\n", picture.title));
        for name in drawn {
            text.push_str(&format!("![{}](plots/{name})\n\n", picture.title));
        }
    }
    text.push_str(&format!(
        "## Ceilings\n\n{}\n{COMMANDS}",
        by_ceiling(record, ceilings)
    ));
    write_file(&docs.join("memory.md"), &text)
}

/// The frame of 300 MB in a process of 512 MB.
fn headline(record: &Record) -> String {
    let mut text = "\
## 300 MB in 512 MB

A frame of 300 MB (numbers, text, categories) is built, put without compression and with zstd, read back by batches
beside the frame, and, when the frame is gone, got whole, both entries one after the other; all contents are compared.
This is one process, which may have 512 MB (`RLIMIT_DATA`, set on itself: heap, stacks and all else that is its own,
touched or not; mapped files are not counted). All its threads share one heap (`MALLOC_ARENA_MAX=1`): glibc would
give each its own, and what one has freed another cannot have; without that Redis passes the limit in some runs. The system this replaces took 1.5 GB and was killed. Encoding the frame into a
buffer before storing it, in the same limit, must fail.

"
    .to_owned();
    let mut table = Table::new(&["case", "store", "finished", "heap", "anon"]);
    for (case, store) in [
        ("mixed-300mb", "file"),
        ("mixed-300mb-redis", "Redis"),
        ("mixed-300mb-memcached", "memcached"),
        ("selftest-limit", "encoded first"),
    ] {
        if let Some(run) = record.of(case).last() {
            let finished = match run.metrics.get("finished") {
                Some(done) if *done > 0.0 => "yes",
                _ => "no: out of memory",
            };
            let [heap, anon] = ["heap", "anon"].map(|metric| peak(run, metric));
            table.row([case.into(), store.into(), finished.into(), heap, anon]);
        }
    }
    text.push_str(&table.markdown());
    text
}

/// The highest peak of all sources, for each operation, store and codec, at the largest size of each; `kind` ends the
/// names of the cases.
fn glance(record: &Record, kind: &str) -> String {
    let mut head = vec!["operation", "store"];
    head.extend(CODECS);
    let mut table = Table::new(&head);
    let mut largest = 0;
    for op in OPS {
        for (store, name) in STORES {
            let cells = CODECS.map(|codec| {
                let runs = SOURCES.iter().filter_map(|source| {
                    let case = format!("{store}-{op}-{codec}-{source}{kind}");
                    record.of(&case).last().cloned()
                });
                let runs: Vec<Run> = runs.collect();
                largest = runs.iter().map(|run| run.bytes).fold(largest, u64::max);
                let peaks = runs
                    .iter()
                    .filter_map(|run| run.metrics.get("anon").copied());
                let highest = peaks.reduce(f64::max);
                highest.map_or("-".to_owned(), |peak| show("anon", peak))
            });
            if cells.iter().any(|cell| cell != "-") {
                table.row([op.to_owned(), name.to_owned()].into_iter().chain(cells));
            }
        }
    }
    let largest = report::bytes(largest);
    let what = "Highest anon of all sources, by codec; tables of";
    format!("{what} {largest}.\n\n{}", table.markdown())
}

/// For each ceiling the highest (or lowest) value at each size, and whose it is.
fn by_ceiling(record: &Record, ceilings: &Ceilings) -> String {
    let sizes = [64, 256, 1024, 4096].map(|mib: u64| mib << 20);
    let sizes: Vec<u64> = sizes
        .into_iter()
        .filter(|size| record.sizes().contains(size))
        .collect();
    let names: Vec<String> = sizes.iter().map(|&size| report::bytes(size)).collect();
    let mut head = vec!["cases", "metric", "ceiling"];
    head.extend(names.iter().map(String::as_str));
    head.push("highest");
    let mut table = Table::new(&head);
    for ceiling in ceilings.all() {
        let cases: Vec<_> = record
            .cases()
            .filter(|(case, _)| {
                ceilings
                    .of(case)
                    .is_some_and(|own| std::ptr::eq(own, ceiling))
            })
            .collect();
        if !cases.is_empty() {
            rows(&mut table, ceiling, &cases, &sizes);
        }
    }
    table.markdown()
}

fn rows(table: &mut Table, ceiling: &Ceiling, cases: &[(&str, &[Run])], sizes: &[u64]) {
    let limits = ceiling.limits.iter().map(|limit| (limit, true));
    let floors = ceiling.floors.iter().map(|floor| (floor, false));
    for ((metric, &bound), is_limit) in limits.chain(floors) {
        let worst = |size: Option<u64>| {
            let runs = cases
                .iter()
                .flat_map(|(case, runs)| runs.iter().map(move |run| (*case, run)));
            let at_size = runs.filter(|(_, run)| size.is_none_or(|size| run.bytes == size));
            let values = at_size.filter_map(|(case, run)| Some((case, *run.metrics.get(metric)?)));
            values.reduce(|a, b| if (b.1 > a.1) == is_limit { b } else { a })
        };
        let at_sizes = sizes.iter().map(|&size| {
            worst(Some(size)).map_or("-".to_owned(), |(_, value)| show(metric, value))
        });
        let whose = match worst(None) {
            Some((case, _)) if cases.len() > 1 => case,
            _ => "",
        };
        let sign = if is_limit { "" } else { "at least " };
        let failing = if ceiling.must_fail.is_empty() {
            ""
        } else {
            " (must fail)"
        };
        let bound = format!("{sign}{}{failing}", show(metric, bound));
        let row = [format!("`{}`", ceiling.cases), metric.clone(), bound];
        table.row(row.into_iter().chain(at_sizes).chain([whose.to_owned()]));
    }
}

fn peak(run: &Run, metric: &str) -> String {
    let value = run.metrics.get(metric);
    value.map_or("-".to_owned(), |&value| show(metric, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_shows_the_worst_case_of_a_ceiling_at_each_size() {
        let run = |mib: u64, heap: u64| {
            let line = format!(r#"{{"metrics":{{"heap":{heap}}},"series":null}}"#);
            Run::parse(mib << 20, &line).unwrap()
        };
        let mut record = Record::default();
        for (case, mib, heap) in [
            ("file-put-none-numeric", 64, 1 << 20),
            ("file-put-none-nested", 64, 3 << 20),
            ("file-put-none-nested", 256, 2 << 20),
        ] {
            record.add(case, run(mib, heap));
        }
        let text = "[\"*-put-*\"]\nreason = \"r\"\nmax = { heap = \"4 MiB\" }\n";
        let table = by_ceiling(&record, &Ceilings::parse(text).unwrap());
        assert!(
            table.contains(
                "| `*-put-*` | heap | 4.0 MiB | 3.0 MiB | 2.0 MiB | file-put-none-nested |"
            ),
            "{table}"
        );
    }
}
