use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Result;
use crate::row::{Memory, Row, Sample, Side};
use crate::scene::Scene;

/// Runs the rows whose names contain `pattern`, both sides in turns, and prints a line for each.
pub(crate) fn compare(scene: &Scene, rows: &[Row], pattern: &str) -> Result<()> {
    let chosen: Vec<&Row> = rows
        .iter()
        .filter(|row| row.name().contains(pattern))
        .collect();
    if chosen.is_empty() {
        return Err(format!("no row matches {pattern:?}").into());
    }
    println!("{}", scene.about()?);
    for (number, row) in chosen.iter().enumerate() {
        let start = Instant::now();
        // The rows after it are worth their time all the same.
        let measured = measure(scene, row).unwrap_or_else(|error| {
            let failed = format!("{}: {error}", row.name());
            eprintln!("failed: {failed}");
            json!({ "failed": failed })
        });
        println!("{measured}");
        eprintln!(
            "[{}/{}] {} ({:.1} s)",
            number + 1,
            chosen.len(),
            row.name(),
            start.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

/// Prints the memory that one side of the row of this very name needs for a round.
pub(crate) fn memory_of(scene: &Scene, rows: &[Row], name: &str, side: &str) -> Result<()> {
    let row = rows
        .iter()
        .find(|row| row.name() == name)
        .ok_or("no such row")?;
    let mut start = reset_peak()?;
    let mut side = match side {
        "ours" => (row.ours)(scene)?,
        _ => (row.theirs)(scene)?,
    };
    if row.memory == Memory::Round {
        start = reset_peak()?;
    }
    let sample = side()?;
    let own = peak()?.saturating_sub(start);
    println!("{}", sample.peak.unwrap_or(own));
    Ok(())
}

fn measure(scene: &Scene, row: &Row) -> Result<Value> {
    // Each in its turn: the leavings of a put are read by no one else.
    scene.start_row()?;
    let mut ours = (row.ours)(scene)?;
    let mut theirs = (row.theirs)(scene)?;
    let (mut our_seconds, mut peer_seconds) = (Vec::new(), Vec::new());
    let mut hits = [0.0; 2];
    // Once each without a record: caches, pools and page tables are as they will be.
    let mut last = (ours()?, theirs()?);
    // What is still to be written back takes a core and the disk from whoever is measured.
    rustix::fs::sync();
    let (least, most, time) = if scene.quick {
        (3, 9, Duration::from_millis(400))
    } else {
        (5, 25, Duration::from_millis(2000))
    };
    let start = Instant::now();
    while our_seconds.len() < least || (our_seconds.len() < most && start.elapsed() < time) {
        last = both(&mut ours, &mut theirs, our_seconds.len())?;
        our_seconds.push(last.0.seconds / row.operations as f64);
        peer_seconds.push(last.1.seconds / row.operations as f64);
        hits[0] += last.0.hit_ratio.unwrap_or_default();
        hits[1] += last.1.hit_ratio.unwrap_or_default();
    }
    drop((ours, theirs));
    let memory = match row.memory != Memory::Nothing && !scene.quick {
        true => [memory(scene, row, "ours")?, memory(scene, row, "peer")?],
        false => [Value::Null, Value::Null],
    };
    let rounds = our_seconds.len() as f64;
    Ok(json!({
        "group": row.group.name(),
        "work": row.work,
        "peer": row.peer,
        "durability": row.terms.durability,
        "verification": row.terms.verification,
        "operations": row.operations,
        "ours": our_seconds,
        "theirs": peer_seconds,
        "stored": [last.0.stored, last.1.stored],
        "hit_ratio": hits.map(|hits| last.0.hit_ratio.map(|_| hits / rounds)),
        "memory": memory,
    }))
}

/// One round: who goes first changes from round to round.
fn both(ours: &mut Side, theirs: &mut Side, round: usize) -> Result<(Sample, Sample)> {
    if round.is_multiple_of(2) {
        let first = ours()?;
        return Ok((first, theirs()?));
    }
    let first = theirs()?;
    Ok((ours()?, first))
}

/// The same side once more, in a process of its own.
fn memory(scene: &Scene, row: &Row, side: &str) -> Result<Value> {
    scene.clear_side()?;
    scene.write_sources()?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["--side", side, "--only", &row.name(), "--dir"])
        .arg(scene.dir());
    if scene.quick {
        command.arg("--quick");
    }
    if let Some(python) = &scene.python {
        command.arg("--python").arg(python);
    }
    let output = command.stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8(output.stdout)?;
    if !output.status.success() {
        return Err(format!("memory of {side}: {}", output.status).into());
    }
    Ok(json!(text.trim().parse::<u64>()?))
}

/// Lets the peak start anew, and returns what is held now, in bytes.
fn reset_peak() -> Result<u64> {
    std::fs::write("/proc/self/clear_refs", "5")?;
    peak()
}

fn peak() -> Result<u64> {
    let status = std::fs::read_to_string(Path::new("/proc/self/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
