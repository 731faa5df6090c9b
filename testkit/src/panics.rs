use std::panic::{self, AssertUnwindSafe};

/// Runs `work`; a panic is an error that says what the panic said.
pub fn catch<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        text.unwrap_or("something that is no text").to_owned()
    })
}

/// Runs `work`, which may catch many panics, without a word of them on the terminal.
///
/// A panic that escapes goes on, and is reported. The hook is that of the whole process: tests that use
/// this must not run side by side ([`heap::alone`](crate::heap::alone)).
#[track_caller]
pub fn quietly<T>(work: impl FnOnce() -> T) -> T {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let result = catch(work);
    panic::set_hook(hook);
    result.unwrap_or_else(|text| panic!("{text}"))
}
