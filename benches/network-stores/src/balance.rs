pub(crate) fn run(_tb: u64) {}
