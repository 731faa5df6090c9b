//! What a long operation says while it runs: a line that moves on a terminal, nothing elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A counter of rows without a known end.
pub(crate) fn rows(what: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(what.to_owned());
    styled(bar, "{spinner} {msg}: {human_pos} rows in {elapsed}")
}

/// A bar over `total` steps of any kind.
pub(crate) fn steps(what: &str, total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total).with_message(what.to_owned());
    styled(bar, "{msg} {wide_bar} {percent}% {elapsed}")
}

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    // The templates are fixed; the default style is as good when one were wrong.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
