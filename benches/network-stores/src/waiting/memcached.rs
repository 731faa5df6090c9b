use ck_backend_memcached::MemcachedBackend;
use ck_core::{Backend, Key, block_on};
use testkit::Memcached;

use super::{Plan, Side, busy};
use crate::Result;
use crate::memcached::{bare, chunks, get, pattern, put, read, write};

pub(crate) fn run(plan: Plan) -> Result<()> {
    let mib = plan.mib;
    let server = Memcached::start_with(&["-m", &(mib * 5 + 256).to_string()]);
    let store = MemcachedBackend::open([server.addr().to_string()])?;
    let (small, large) = (Key::new("small"), Key::new("large"));
    let bytes = pattern(mib << 20);
    put(&store, &small, &bytes.slice(..1 << 10))?;
    put(&store, &large, &bytes)?;
    let (prober, mover) = (bare(&server)?, bare(&server)?);
    let cut = chunks(&mover, large.as_str(), &bytes)?;
    write(&mover, &cut)?;

    let mut ours = Side {
        probe: (
            "our get",
            Box::new(|| {
                assert!(block_on(store.open(&small))?.is_some());
                Ok(())
            }),
        ),
        loads: vec![
            ("our put", Box::new(|| put(&store, &large, &bytes))),
            ("our get", Box::new(|| get(&store, &large).map(drop))),
        ],
    };
    ours.loads.extend(busy(plan));
    let mut theirs = Side {
        probe: (
            "bare get",
            Box::new(|| {
                let value: Option<Vec<u8>> = prober.get(small.as_str())?;
                assert!(value.is_some());
                Ok(())
            }),
        ),
        loads: vec![
            ("bare put", Box::new(|| write(&mover, &cut))),
            ("bare get", Box::new(|| read(&mover, &cut).map(drop))),
        ],
    };
    theirs.loads.extend(busy(plan));
    super::run("memcached", &[ours, theirs], plan)
}
