use crate::args::TouchArgs;
use crate::failure::Failure;
use crate::store::Store;

/// `ck touch KEY TTL`
pub(crate) fn run(store: &Store, args: &TouchArgs) -> Result<(), Failure> {
    if store.open()?.touch(args.key.as_str(), args.ttl)? {
        return Ok(());
    }
    Err(Failure::miss(&args.key))
}
