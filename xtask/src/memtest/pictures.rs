//! Memory over time and against size, path by path.

use std::path::Path;

use super::ceilings::Ceilings;
use super::record::{Record, Run};
use crate::plot::{Axis, Chart, Line, Unit};
use crate::{Result, report};

/// A path through the library, and the cases that show it.
pub(super) struct Picture {
    /// Of the files, and in the titles.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// The names of its cases; of those of the matrix, what stands between store and codec.
    cases: Cases,
    /// What the work of other systems is called that does the same.
    peers: Option<&'static str>,
}

enum Cases {
    Op(&'static str),
    /// Of an operation with encryption.
    Encrypted(&'static str),
    Named(&'static [(&'static str, &'static str)]),
}

pub(super) const PICTURES: &[Picture] = &[
    Picture {
        name: "put",
        title: "Put of a table in memory",
        cases: Cases::Op("put"),
        peers: Some("put"),
    },
    Picture {
        name: "batches",
        title: "Get by batches",
        cases: Cases::Op("batches"),
        peers: None,
    },
    Picture {
        name: "whole",
        title: "Get of a whole table",
        cases: Cases::Op("whole"),
        peers: Some("get"),
    },
    Picture {
        name: "project",
        title: "Get of some columns",
        cases: Cases::Op("project"),
        peers: None,
    },
    Picture {
        name: "rows",
        title: "Get of a thousand rows",
        cases: Cases::Op("rows"),
        peers: None,
    },
    Picture {
        name: "verify",
        title: "Verification of an entry",
        cases: Cases::Op("verify"),
        peers: None,
    },
    Picture {
        name: "put-encrypted",
        title: "Put of a table in memory, encrypted",
        cases: Cases::Encrypted("put"),
        peers: None,
    },
    Picture {
        name: "batches-encrypted",
        title: "Get by batches, encrypted",
        cases: Cases::Encrypted("batches"),
        peers: None,
    },
    Picture {
        name: "l1",
        title: "Tables through the process, one after the other",
        cases: Cases::Named(&[
            ("l1-churn", "no store"),
            ("l1-churn-file", "file store, zstd"),
            ("l1-churn-redis", "Redis, zstd"),
            ("l1-churn-memcached", "memcached, zstd"),
        ]),
        peers: None,
    },
    Picture {
        name: "load",
        title: "One load for a thousand tasks",
        cases: Cases::Named(&[
            ("load-file", "file store"),
            ("load-redis", "Redis"),
            ("load-memcached", "memcached"),
        ]),
        peers: None,
    },
];

/// The axes of the matrix that pictures show, by name and for people. LZ4 has lines of the same shape as zstd.
pub(super) const STORES: [(&str, &str); 4] = [
    ("file", "file, mapped"),
    ("pread", "file, read"),
    ("redis", "Redis"),
    ("memcached", "memcached"),
];
const CODECS: [(&str, &str); 2] = [("none", "plain"), ("zstd", "zstd")];

/// Sources, the one that is shown first.
pub(super) const SOURCES: [&str; 6] = [
    "numeric",
    "strings",
    "views",
    "nested",
    "dictionary",
    "skewed",
];

/// What the pictures show of memory: what no other process could have.
const KIND: &str = "anon";

impl Picture {
    /// Draws both pictures of this path into `dir`; the names of those that there are figures for.
    pub(super) fn draw(
        &self,
        record: &Record,
        ceilings: &Ceilings,
        dir: &Path,
    ) -> Result<Vec<String>> {
        let mut drawn = Vec::new();
        for (kind, chart) in [
            ("time", self.over_time(record)),
            ("size", self.by_size(record, ceilings)),
        ] {
            if let Some(chart) = chart {
                let name = format!("memory-{}-{kind}.svg", self.name);
                chart.save(&dir.join(&name))?;
                drawn.push(name);
            }
        }
        Ok(drawn)
    }

    fn over_time(&self, record: &Record) -> Option<Chart> {
        let lines = self.groups().into_iter().filter_map(|(name, cases)| {
            // The first source that was measured at all; the pictures are of the usual one.
            let run = cases.iter().find_map(|case| record.of(case).last())?;
            let points = run.points(KIND);
            (!points.is_empty()).then_some((run.bytes, line(&name, points, false)))
        });
        let mut lines: Vec<_> = lines.collect();
        let bytes = lines.iter().map(|(bytes, _)| *bytes).max()?;
        let peers = self.peers(record).filter_map(|(name, runs)| {
            let points = runs.iter().find(|run| run.bytes == bytes)?.points(KIND);
            (!points.is_empty()).then(|| (bytes, line(&name, points, true)))
        });
        lines.extend(peers);
        let has_peers = lines.iter().any(|(_, line)| line.peer);
        let at_size = lines.into_iter().filter(|(size, _)| *size == bytes);
        let size = report::bytes(bytes);
        let dashed = if has_peers { "; dashed: not ours" } else { "" };
        Some(Chart {
            title: format!("{}: memory over time", self.title),
            note: format!(
                "source of {size}; heap and stacks resident (RssAnon) above what stood before, sampled every 2 ms{dashed}"
            ),
            x: axis("time since the start", Unit::Seconds, false),
            y: axis("memory above the source", Unit::Bytes, has_peers),
            lines: at_size.map(|(_, line)| line).collect(),
            bound: None,
        })
    }

    fn by_size(&self, record: &Record, ceilings: &Ceilings) -> Option<Chart> {
        let own = self.groups().into_iter().filter_map(|(name, cases)| {
            let runs = cases.iter().flat_map(|case| record.of(case));
            let points = highest(record, runs);
            (!points.is_empty()).then(|| line(&name, points, false))
        });
        let mut lines: Vec<_> = own.collect();
        if lines.is_empty() {
            return None;
        }
        let peers = self.peers(record);
        lines.extend(peers.map(|(name, runs)| line(&name, highest(record, runs.iter()), true)));
        let gives_a_table = self.gives_a_table(ceilings);
        if gives_a_table {
            let table = lines[0].points.iter().map(|&(size, _)| (size, size));
            lines.push(line("the table itself", table.collect(), true));
        }
        Some(Chart {
            title: format!("{}: peak memory against size", self.title),
            note: "highest of all sources; heap and stacks resident (RssAnon) above what stood before; dashed: not ours".to_owned(),
            x: axis("size of the table", Unit::Bytes, true),
            y: axis("peak above the source", Unit::Bytes, true),
            lines,
            bound: self.bound(ceilings).filter(|_| !gives_a_table),
        })
    }

    /// The same work by other systems.
    fn peers<'a>(&self, record: &'a Record) -> impl Iterator<Item = (String, &'a [Run])> {
        let prefix = self.peers.map(|work| format!("peer-{work}-"));
        record.cases().filter_map(move |(case, runs)| {
            let name = case.strip_prefix(prefix.as_deref()?)?;
            Some((peer_name(name), runs))
        })
    }

    /// Whether what it gives is in memory as a whole, and ceilings are for what is beyond.
    fn gives_a_table(&self, ceilings: &Ceilings) -> bool {
        let mut cases = self.groups().into_iter().flat_map(|(_, cases)| cases);
        cases.any(|case| {
            let limits = ceilings.of(&case).map(|ceiling| &ceiling.limits);
            limits.is_some_and(|limits| limits.keys().any(|name| name.ends_with("beyond")))
        })
    }

    /// The highest ceiling of what is shown.
    fn bound(&self, ceilings: &Ceilings) -> Option<(f64, String)> {
        let cases = self.groups().into_iter().flat_map(|(_, cases)| cases);
        let limits = cases.filter_map(|case| {
            let limits = &ceilings.of(&case)?.limits;
            // Where there is none of its own, it is a part of the resident size.
            limits.get(KIND).or_else(|| limits.get("rss")).copied()
        });
        let highest = limits.reduce(f64::max)?;
        Some((highest, "highest ceiling".to_owned()))
    }

    /// Lines by name, each with its cases.
    fn groups(&self) -> Vec<(String, Vec<String>)> {
        match self.cases {
            Cases::Named(names) => names
                .iter()
                .map(|&(case, name)| (name.to_owned(), vec![case.to_owned()]))
                .collect(),
            Cases::Op(op) | Cases::Encrypted(op) => {
                let form = match self.cases {
                    Cases::Encrypted(_) => "-encrypted",
                    _ => "",
                };
                let lines = STORES
                    .iter()
                    .flat_map(|store| CODECS.map(|codec| (store, codec)));
                lines
                    .map(|((store, store_name), (codec, codec_name))| {
                        let cases =
                            SOURCES.map(|source| format!("{store}-{op}-{codec}-{source}{form}"));
                        (format!("{store_name}, {codec_name}"), cases.to_vec())
                    })
                    .collect()
            }
        }
    }
}

/// The highest peak at each of the sizes that sources come in.
#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^53 bytes")]
fn highest<'a>(record: &Record, runs: impl Iterator<Item = &'a Run> + Clone) -> Vec<(f64, f64)> {
    let at = |size: u64| {
        let peaks = runs.clone().filter(|run| run.bytes == size);
        let peaks = peaks.filter_map(|run| run.metrics.get(KIND).copied());
        Some((size as f64, peaks.reduce(f64::max)?))
    };
    record.sizes().into_iter().filter_map(at).collect()
}

/// `feather-zstd` is `pyarrow feather, zstd`.
fn peer_name(name: &str) -> String {
    let (system, codec) = name.rsplit_once('-').unwrap_or((name, ""));
    let system = match system {
        "arrow-ipc" => "arrow-ipc FileWriter",
        "feather" => "pyarrow feather",
        "parquet" => "pyarrow parquet",
        "cachekit" => "cachekit, buffered",
        "cachekit-streamed" => "cachekit, streamed",
        other => other,
    };
    let codec = CODECS.iter().find(|(name, _)| *name == codec);
    format!("{system}, {}", codec.map_or("", |(_, name)| name))
}

fn line(name: &str, points: Vec<(f64, f64)>, peer: bool) -> Line {
    Line {
        name: name.to_owned(),
        points,
        peer,
    }
}

fn axis(label: &str, unit: Unit, log: bool) -> Axis {
    Axis {
        label: label.to_owned(),
        unit,
        log,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::{read, target_dir};

    fn run(mib: u64, anon: u64) -> Run {
        let line = format!(
            r#"{{"metrics":{{"anon":{anon}}},"series":{{"before":{{"anon":5}},"ms":[0,8],"anon":[5,{anon}]}}}}"#
        );
        Run::parse(mib << 20, &line).unwrap()
    }

    #[test]
    fn pictures_show_the_highest_source_the_peers_and_the_ceiling() {
        let mut record = Record::default();
        for (case, anon) in [
            ("file-put-none-numeric", 1 << 20),
            ("file-put-none-nested", 3 << 20),
            ("redis-put-zstd-strings", 9 << 20),
            ("peer-put-feather-zstd", 70 << 20),
        ] {
            for mib in [64, 256] {
                record.add(case, run(mib, anon));
            }
        }
        let text = "[\"*-put-*\"]\nreason = \"r\"\nmax = { rss = \"28 MiB\" }\n";
        let ceilings = Ceilings::parse(text).unwrap();
        let put = PICTURES
            .iter()
            .find(|picture| picture.name == "put")
            .unwrap();
        let chart = put.by_size(&record, &ceilings).unwrap();
        let named = |name: &str| chart.lines.iter().find(|line| line.name == name).unwrap();
        assert_eq!(
            named("file, mapped, plain").points[0],
            (67_108_864.0, 3_145_728.0)
        );
        assert!(named("pyarrow feather, zstd").peer && chart.lines.len() == 3);
        assert_eq!(chart.bound.unwrap().0, 29_360_128.0);
        let text = "[\"*-put-*\"]\nreason = \"r\"\nmax = { rss_beyond = \"28 MiB\" }\n";
        let chart = put
            .by_size(&record, &Ceilings::parse(text).unwrap())
            .unwrap();
        let table = chart.lines.last().unwrap();
        assert_eq!(table.points[1], (268_435_456.0, 268_435_456.0));
        assert!(chart.bound.is_none() && table.name == "the table itself");
        let dir = target_dir().join("xtask-tests/plots");
        let drawn = put.draw(&record, &ceilings, &dir).unwrap();
        assert_eq!(drawn, ["memory-put-time.svg", "memory-put-size.svg"]);
        for drawn in drawn {
            let picture = read(&dir.join(&drawn)).unwrap();
            for line in ["Redis, zstd", "pyarrow feather, zstd", "dashed: not ours"] {
                assert!(picture.contains(line), "{drawn}: {line}");
            }
        }
        record.add("redis-put-zstd-views-encrypted", run(64, 9 << 20));
        let encrypted = PICTURES
            .iter()
            .find(|picture| picture.name == "put-encrypted")
            .unwrap();
        let chart = encrypted.over_time(&record).unwrap();
        let names: Vec<_> = chart.lines.iter().map(|line| &line.name[..]).collect();
        assert_eq!(names, ["Redis, zstd"]);
        let none = PICTURES
            .iter()
            .find(|picture| picture.name == "rows")
            .unwrap();
        assert!(none.draw(&record, &ceilings, &dir).unwrap().is_empty());
    }
}
