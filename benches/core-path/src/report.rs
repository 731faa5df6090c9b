use std::time::Duration;

/// The times of one side.
#[derive(Default)]
pub(crate) struct Series(Vec<f64>);

impl Series {
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64());
    }

    pub(crate) fn add_seconds(&mut self, seconds: f64) {
        self.0.push(seconds);
    }

    fn sorted(&self) -> Vec<f64> {
        let mut times = self.0.clone();
        times.sort_by(f64::total_cmp);
        times
    }

    fn median(&self) -> f64 {
        self.sorted()[self.0.len() / 2]
    }

    /// The middle half of the times, as a share of the median.
    fn spread(&self) -> String {
        let (times, n) = (self.sorted(), self.0.len());
        let share = |i: usize| (times[i] / self.median() - 1.0) * 100.0;
        format!("{:+.0}%..{:+.0}%", share(n / 4), share(n - 1 - n / 4))
    }
}

/// What is printed at the end.
#[derive(Default)]
pub(crate) struct Report {
    lines: Vec<String>,
}

impl Report {
    /// Both sides did the same work on `bytes`; the ratio is how many times as fast ours is.
    pub(crate) fn speed(&mut self, what: &str, ours: &Series, theirs: &Series, bytes: usize, bound: &str) {
        let rate = |series: &Series| bytes as f64 / 1e9 / series.median();
        self.line(format!(
            "| {what} | {:.2} GB/s ({}) | {:.2} GB/s ({}) | {:.2} | {bound} |",
            rate(ours),
            ours.spread(),
            rate(theirs),
            theirs.spread(),
            theirs.median() / ours.median(),
        ));
    }

    /// As [`Report::speed`], for operations that are counted, not measured in bytes.
    pub(crate) fn latency(&mut self, what: &str, ours: &Series, theirs: &Series, bound: &str) {
        self.line(format!(
            "| {what} | {:.1} us ({}) | {:.1} us ({}) | {:.2} | {bound} |",
            ours.median() * 1e6,
            ours.spread(),
            theirs.median() * 1e6,
            theirs.spread(),
            theirs.median() / ours.median(),
        ));
    }

    pub(crate) fn time(&mut self, what: &str, ours: &Series, bound: &str) {
        self.line(format!("| {what} | {:.1} us ({}) | | | {bound} |", ours.median() * 1e6, ours.spread()));
    }

    pub(crate) fn note(&mut self, note: &str) {
        self.line(format!("| {note} | | | | |"));
    }

    fn line(&mut self, line: String) {
        eprintln!("{line}");
        self.lines.push(line);
    }

    pub(crate) fn print(&self) {
        println!("| work | ours: median (middle half) | peer: median (middle half) | times as fast | bound |");
        println!("|---|---|---|---|---|");
        for line in &self.lines {
            println!("{line}");
        }
    }
}
