use std::env::VarError;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use ck_cache::{Compression, Verification, parse_bytes, parse_duration};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Arg, ArgAction, ArgMatches, value_parser};

use crate::store::Store;

const EXIT_CODES: &str = "Exit codes: 0 done, 1 any other failure, 2 wrong usage, 3 no such entry, \
4 corrupt, 5 store unreachable or value refused.

Stores: file:PATH, redis://HOST:PORT/DATABASE, redis+unix:///PATH, redis-cluster://HOST:PORT,HOST:PORT, \
redis-sentinel://HOST:PORT,HOST:PORT/NAME, memcached://HOST:PORT,HOST:PORT; rediss... is Redis over TLS. \
Options as in 'file:PATH?limit_bytes=10GiB&durability=synced'; a wrong one lists those there are.";

/// A parsed command line.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) store: Store,
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug)]
pub(crate) enum Command {
    Put(PutArgs),
    Get(GetArgs),
    Decode(DecodeArgs),
    Ls(JsonArgs),
    Stat(KeyArgs),
    Inspect(KeyArgs),
    Verify(VerifyArgs),
    Rm(RmArgs),
    Touch(TouchArgs),
    Du(JsonArgs),
    Prune,
    Keygen,
    Demo(DemoArgs),
    DemoStep(DemoStepArgs),
}

#[derive(Debug)]
pub(crate) struct PutArgs {
    pub(crate) key: String,
    pub(crate) input: PutInput,
    pub(crate) ttl: Option<Duration>,
    pub(crate) quiet: bool,
}

/// What is stored.
#[derive(Debug)]
pub(crate) enum PutInput {
    Table {
        file: PathBuf,
        compression: Compression,
    },
    Json {
        file: PathBuf,
    },
}

#[derive(Debug)]
pub(crate) struct GetArgs {
    pub(crate) key: String,
    pub(crate) output: Option<PathBuf>,
    pub(crate) selection: Selection,
    pub(crate) verification: Verification,
}

/// Which part of a table is wanted.
#[derive(Debug)]
pub(crate) struct Selection {
    pub(crate) columns: Option<Vec<String>>,
    pub(crate) rows: Option<Range<u64>>,
}

#[derive(Debug)]
pub(crate) struct DecodeArgs {
    pub(crate) file: PathBuf,
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug)]
pub(crate) struct JsonArgs {
    pub(crate) json: bool,
}

#[derive(Debug)]
pub(crate) struct KeyArgs {
    pub(crate) key: String,
    pub(crate) json: bool,
}

#[derive(Debug)]
pub(crate) struct VerifyArgs {
    /// `None` for every entry.
    pub(crate) key: Option<String>,
}

#[derive(Debug)]
pub(crate) struct RmArgs {
    pub(crate) keys: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct TouchArgs {
    pub(crate) key: String,
    pub(crate) ttl: Option<Duration>,
}

#[derive(Debug)]
pub(crate) struct DemoArgs {
    pub(crate) size: u64,
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Debug)]
pub(crate) struct DemoStepArgs {
    pub(crate) step: String,
    pub(crate) key: String,
}

/// Parses the command line; prints help or what is wrong with it otherwise.
pub(crate) fn parse() -> Result<Invocation, ExitCode> {
    let matches = command().try_get_matches().map_err(|error| {
        // Printing can only fail when nobody reads it.
        let _ = error.print();
        ExitCode::from(if error.use_stderr() { 2 } else { 0 })
    })?;
    let url = matches.get_one::<String>("store").cloned();
    let url = match (url, std::env::var("CK_STORE")) {
        (None, Ok(variable)) if !variable.is_empty() => Some(variable),
        // Another store than the one that was meant would be worse than none.
        (None, Err(VarError::NotUnicode(_))) => {
            eprintln!("ck: CK_STORE is not UTF-8; write other bytes of a path as %XX");
            return Err(ExitCode::from(2));
        }
        (url, _) => url,
    };
    let store = Store::new(url, matches.get_flag("encrypt"));
    let command = match matches.subcommand() {
        Some(("put", m)) => Command::Put(PutArgs {
            key: text(m, "key"),
            input: match path(m, "json") {
                Some(file) => PutInput::Json { file },
                None => PutInput::Table {
                    file: path(m, "file").unwrap_or_default(),
                    compression: compression(m)?,
                },
            },
            ttl: m.get_one::<Option<Duration>>("ttl").copied().flatten(),
            quiet: m.get_flag("quiet"),
        }),
        Some(("get", m)) => Command::Get(GetArgs {
            key: text(m, "key"),
            output: path(m, "output"),
            selection: Selection {
                columns: m
                    .get_many::<String>("columns")
                    .map(|names| names.cloned().collect()),
                rows: m.get_one::<Range<u64>>("rows").cloned(),
            },
            verification: m
                .get_one::<Verification>("verify")
                .copied()
                .unwrap_or_default(),
        }),
        Some(("decode", m)) => Command::Decode(DecodeArgs {
            file: path(m, "file").unwrap_or_default(),
            output: path(m, "output"),
        }),
        Some(("ls", m)) => Command::Ls(JsonArgs {
            json: m.get_flag("json"),
        }),
        Some(("stat", m)) => Command::Stat(key_args(m)),
        Some(("inspect", m)) => Command::Inspect(key_args(m)),
        Some(("verify", m)) => Command::Verify(VerifyArgs {
            key: m.get_one::<String>("key").cloned(),
        }),
        Some(("rm", m)) => Command::Rm(RmArgs {
            keys: m
                .get_many::<String>("keys")
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
        }),
        Some(("touch", m)) => Command::Touch(TouchArgs {
            key: text(m, "key"),
            ttl: m.get_one::<Option<Duration>>("ttl").copied().flatten(),
        }),
        Some(("du", m)) => Command::Du(JsonArgs {
            json: m.get_flag("json"),
        }),
        Some(("prune", _)) => Command::Prune,
        Some(("keygen", _)) => Command::Keygen,
        Some(("demo", m)) => Command::Demo(DemoArgs {
            size: m.get_one::<u64>("size").copied().unwrap_or(1 << 30),
            dir: path(m, "dir"),
        }),
        Some(("demo-step", m)) => Command::DemoStep(DemoStepArgs {
            step: text(m, "step"),
            key: text(m, "key"),
        }),
        // clap has made sure that there is a command, and one of these.
        _ => return Err(ExitCode::from(2)),
    };
    Ok(Invocation { store, command })
}

fn command() -> clap::Command {
    clap::Command::new("ck")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A cache for Arrow tables")
        .after_help(EXIT_CODES)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .arg(
            Arg::new("store")
                .long("store")
                .value_name("URL")
                .global(true)
                .help("Where entries live [env: CK_STORE] [default: file: and your cache directory + /ck]"),
        )
        .arg(
            Arg::new("encrypt")
                .long("encrypt")
                .global(true)
                .action(ArgAction::SetTrue)
                .help("Encrypt what is stored, and read nothing else, with the key in CACHEKIT_MASTER_KEY"),
        )
        .subcommands([put(), get(), decode(), ls(), stat(), inspect(), verify(), rm(), touch(), du()])
        .subcommands([prune(), keygen(), demo(), demo_step()])
}

fn put() -> clap::Command {
    clap::Command::new("put")
        .about("Store a table, or a JSON value for the Python client")
        .override_usage("ck put [OPTIONS] <KEY> <FILE>\n       ck put [OPTIONS] <KEY> --json <FILE>")
        .arg(key())
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .required_unless_present("json")
                .conflicts_with("json")
                .value_parser(value_parser!(PathBuf))
                .help("parquet, arrow or feather (IPC file or stream), csv; - reads an IPC stream from standard input"),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .conflicts_with_all(["compression", "level"])
                .help("Store this JSON text as a value of the Python client's default serializer; - reads standard input"),
        )
        .arg(
            Arg::new("ttl")
                .long("ttl")
                .value_name("TIME")
                .value_parser(ttl)
                .help("How long the entry lives: 90s, 1h30m, 30d, or never [default: never]"),
        )
        .arg(
            Arg::new("compression")
                .long("compression")
                .value_name("CODEC")
                .value_parser(PossibleValuesParser::new(["auto", "none", "lz4", "zstd"]))
                .default_value("auto")
                .help("How columns are compressed; auto obeys CACHEKIT_ARROW_COMPRESSION, and otherwise means none for a directory"),
        )
        .arg(
            Arg::new("level")
                .long("level")
                .value_name("N")
                .value_parser(value_parser!(i32).range(1..=22))
                .help("The zstd level, 1 to 22; needs --compression zstd"),
        )
        .arg(
            Arg::new("quiet")
                .long("quiet")
                .short('q')
                .action(ArgAction::SetTrue)
                .help("Say nothing when all is well"),
        )
        .after_help(
            "Types of csv columns are inferred from the first 10,000 rows; the first line holds the names.

A JSON value has up to 512 MiB, and no integers beyond 64 bits. The Python client reads objects such as
{\"__datetime__\": true, \"value\": \"2025-11-14T10:30:00+00:00\"} as dates and times, likewise
\"__date__\" and \"__time__\".",
        )
}

fn get() -> clap::Command {
    clap::Command::new("get")
        .about("Read a table, or a part of it, or a value of the Python client as JSON")
        .arg(key())
        .arg(output())
        .arg(
            Arg::new("columns")
                .long("columns")
                .value_name("NAMES")
                .value_delimiter(',')
                .help("Only these columns, in this order: a,b"),
        )
        .arg(
            Arg::new("rows")
                .long("rows")
                .value_name("A..B")
                .value_parser(row_range)
                .help("Only these rows, counted from 0, without B: 100..200, 100.., ..200"),
        )
        .arg(
            Arg::new("verify")
                .long("verify")
                .value_name("HOW")
                .default_value("touch")
                .value_parser(
                    PossibleValuesParser::new(["touch", "full", "off"]).map(|how| {
                        match how.as_str() {
                            "full" => Verification::Full,
                            "off" => Verification::Off,
                            _ => Verification::OnTouch,
                        }
                    }),
                )
                .help("Check what is read, the whole entry first, or nothing"),
        )
        .after_help(
            "A damaged entry is a miss (exit code 3) and is removed.

A value of the Python client's default serializer is printed, or written to OUT, as one line of JSON. Dates
and times are objects such as {\"__datetime__\": true, \"value\": \"2025-11-14T10:30:00+00:00\"}. A value with
bytes, keys that are not text, NaN or infinities has no JSON: that is an error.",
        )
}

fn decode() -> clap::Command {
    clap::Command::new("decode")
        .about("Read a file that holds an entry: a frame, a legacy envelope, a bare payload, or a file of a store")
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("The file"),
        )
        .arg(output())
}

fn ls() -> clap::Command {
    clap::Command::new("ls")
        .about("List entries: key, size, expiry, last use")
        .arg(json())
}

fn stat() -> clap::Command {
    clap::Command::new("stat")
        .about("Show what the store knows of an entry")
        .arg(key())
        .arg(json())
}

fn inspect() -> clap::Command {
    clap::Command::new("inspect")
        .about("Show how an entry is laid out: header, batches, columns, sizes, hashes")
        .arg(key())
        .arg(json())
}

fn verify() -> clap::Command {
    clap::Command::new("verify")
        .about("Read every byte of an entry, or of all entries, and check all hashes")
        .override_usage("ck verify [OPTIONS] <KEY>\n       ck verify [OPTIONS] --all")
        .arg(
            key()
                .required(false)
                .required_unless_present("all")
                .conflicts_with("all"),
        )
        .arg(
            Arg::new("all")
                .long("all")
                .action(ArgAction::SetTrue)
                .help("Every entry of the store"),
        )
}

fn rm() -> clap::Command {
    clap::Command::new("rm").about("Remove entries").arg(
        Arg::new("keys")
            .value_name("KEY")
            .required(true)
            .num_args(1..)
            .help("The keys"),
    )
}

fn touch() -> clap::Command {
    clap::Command::new("touch")
        .about("Give an entry a new time to live")
        .arg(key())
        .arg(
            Arg::new("ttl")
                .value_name("TTL")
                .required(true)
                .value_parser(ttl)
                .help("Counted from now: 90s, 1h30m, 30d, or never"),
        )
}

fn du() -> clap::Command {
    clap::Command::new("du")
        .about("Show how full the store is")
        .arg(json())
}

fn prune() -> clap::Command {
    clap::Command::new("prune").about("Remove expired entries and what killed writers left over")
}

fn keygen() -> clap::Command {
    clap::Command::new("keygen")
        .about("Make a master key for CACHEKIT_MASTER_KEY")
        .after_help(
            "With --encrypt, entries are encrypted with the key in CACHEKIT_MASTER_KEY, for the tenant in
CACHEKIT_DEPLOYMENT_UUID or 'default'. Keys that it has replaced, at most three with commas between them in
CACHEKIT_PREVIOUS_MASTER_KEYS, still decrypt. An entry that is plain, of another key, or was tampered with is an
error with exit code 4, and stays.",
        )
}

fn demo() -> clap::Command {
    clap::Command::new("demo")
        .about("Cache a generated table, read it back from fresh processes, and show time and memory")
        .arg(
            Arg::new("size")
                .long("size")
                .value_name("BYTES")
                .default_value("1GiB")
                .value_parser(|text: &str| parse_bytes(text).map_err(|error| error.to_string()))
                .help("The size of the table in memory"),
        )
        .arg(
            Arg::new("dir")
                .long("dir")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .help("Where to put the store of the demo, which is removed at the end [default: your cache directory]"),
        )
}

/// What the demo runs in fresh processes.
fn demo_step() -> clap::Command {
    clap::Command::new("demo-step")
        .hide(true)
        .arg(Arg::new("step").required(true))
        .arg(Arg::new("key").required(true))
}

fn key() -> Arg {
    Arg::new("key")
        .value_name("KEY")
        .required(true)
        .help("Any text")
}

fn json() -> Arg {
    Arg::new("json")
        .long("json")
        .action(ArgAction::SetTrue)
        .help("As JSON")
}

fn output() -> Arg {
    Arg::new("output")
        .short('o')
        .long("output")
        .value_name("OUT")
        .value_parser(value_parser!(PathBuf))
        .help("Write to this file, by its extension: arrow, feather, arrows (stream), parquet, csv; - writes an IPC stream to standard output [default: a preview]")
}

fn key_args(matches: &ArgMatches) -> KeyArgs {
    KeyArgs {
        key: text(matches, "key"),
        json: matches.get_flag("json"),
    }
}

fn text(matches: &ArgMatches, name: &str) -> String {
    matches.get_one::<String>(name).cloned().unwrap_or_default()
}

fn path(matches: &ArgMatches, name: &str) -> Option<PathBuf> {
    matches.get_one::<PathBuf>(name).cloned()
}

fn compression(matches: &ArgMatches) -> Result<Compression, ExitCode> {
    let codec = text(matches, "compression");
    let chosen = codec.parse().unwrap_or_default();
    match (matches.get_one::<i32>("level"), chosen) {
        (None, _) => Ok(chosen),
        (Some(level), Compression::Zstd(_)) => Ok(Compression::Zstd(*level)),
        (Some(_), _) => {
            eprintln!("ck: --level needs --compression zstd, and the compression is {codec}");
            Err(ExitCode::from(2))
        }
    }
}

fn ttl(text: &str) -> Result<Option<Duration>, String> {
    if text == "never" {
        return Ok(None);
    }
    match parse_duration(text) {
        Ok(Duration::ZERO) => {
            Err("a time of zero would store nothing; write never for no end".to_owned())
        }
        Ok(ttl) => Ok(Some(ttl)),
        Err(error) => Err(format!("{}, or never", error.message())),
    }
}

fn row_range(text: &str) -> Result<Range<u64>, String> {
    let parse = |bound: &str, default| match bound {
        "" => Ok(default),
        bound => bound.replace('_', "").parse::<u64>().map_err(|_| ()),
    };
    let bounds = text
        .split_once("..")
        .map(|(a, b)| (parse(a, 0), parse(b, u64::MAX)));
    match bounds {
        Some((Ok(start), Ok(end))) if start <= end => Ok(start..end),
        Some((Ok(start), Ok(end))) => {
            Err(format!("the range starts at {start}, after its end {end}"))
        }
        _ => Err("not a range of rows; write it like 100..200, 100.. or ..200".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn row_ranges_may_be_open_at_both_ends() {
        assert_eq!(row_range("1..3"), Ok(1..3));
        assert_eq!(row_range("1.."), Ok(1..u64::MAX));
        assert_eq!(row_range("..1_000"), Ok(0..1000));
        assert!(row_range("3..1").unwrap_err().contains("after its end"));
        for text in ["", "3", "a..b", "-1..2", "1...2"] {
            assert!(row_range(text).is_err(), "{text}");
        }
    }
}
