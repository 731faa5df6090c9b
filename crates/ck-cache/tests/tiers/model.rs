use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use ck_cache::{Cache, Error, ErrorKind, LoadOptions, Outcome, PutOptions, Result, open_store};
use ck_codec::MessagePack;
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::task::yield_now;

use super::map_store::MapStore;
use super::oracle::{
    Gives, Kind, LOADER_FAILS, Load, Made, NumbersKey, PrivateKey, Seen, State, TextKey, Ttl,
    bytes_of_numbers, bytes_of_table,
};
use super::steps::{KEYS, LONG, Place, Race, SHORT, SPACES, Setting, Step, setting, steps};

const CASES: u32 = 250;

/// What lies below the process.
enum Below {
    Nothing,
    Map(MapStore),
    /// A directory; with a limit it may drop entries and refuse them.
    File(TempDir, &'static str),
}

struct Run {
    below: Below,
    l1_bytes: u64,
    spaces: [Cache; SPACES],
    elsewhere: Option<Cache>,
    states: [[Vec<State>; KEYS]; SPACES],
    /// The namespace was invalidated here and not in the store.
    is_namespace_unsure: bool,
    /// The namespace's number could perhaps not be read, so that until it can another one stands in for it for
    /// those who look for something. What they load is lost with it, and what is stored is not found.
    has_stand_in: bool,
    /// A load has failed there, so that what the process holds may not be made anew for a second.
    is_put_off: [[bool; KEYS]; SPACES],
    numbers: u32,
}

impl Run {
    fn new(below: Below, setting: &Setting) -> Self {
        let store = || match &below {
            Below::Nothing => None,
            Below::Map(store) => Some(Arc::new(store.clone()) as Arc<dyn ck_cache::Backend>),
            Below::File(dir, options) => {
                Some(open_store(&format!("file:{}{options}", dir.path().display())).unwrap())
            }
        };
        let cache = match store() {
            None => Cache::in_process(setting.l1_bytes),
            Some(store) => {
                let builder = Cache::builder(store)
                    .l1_bytes(setting.l1_bytes)
                    .l1_policy(setting.policy)
                    .memory_budget_bytes(16 << 20)
                    .on_store_failure(setting.on_failure);
                match setting.max_age {
                    Some(max_age) => builder.l1_max_age(max_age).build(),
                    None => builder.build(),
                }
            }
        };
        let elsewhere = store().map(Cache::new);
        Self {
            below,
            l1_bytes: setting.l1_bytes,
            spaces: [cache.clone(), cache.namespace("n")],
            elsewhere,
            states: std::array::from_fn(|_| std::array::from_fn(|_| vec![State::Gone])),
            is_namespace_unsure: false,
            has_stand_in: false,
            is_put_off: [[false; KEYS]; SPACES],
            numbers: 0,
        }
    }

    /// Only the process has it, if anything.
    fn is_local(&self, place: Place) -> bool {
        place.is_private() || matches!(self.below, Below::Nothing)
    }

    fn is_limited(&self) -> bool {
        matches!(self.below, Below::File(_, options) if !options.is_empty())
    }

    fn is_unsure(&self, place: Place) -> bool {
        place.space > 0 && (self.is_namespace_unsure || self.has_stand_in)
    }

    /// All that may be there.
    fn possible(&self, place: Place) -> Vec<State> {
        let mut states = self.states[place.space][place.key].clone();
        if self.is_local(place) || self.is_limited() || self.is_unsure(place) {
            states.push(State::Gone);
        }
        states
    }

    /// Something was written or removed.
    fn set(&mut self, place: Place, states: Vec<State>, is_certain: bool) {
        let is_certain = is_certain && !self.is_unsure(place);
        let known = &mut self.states[place.space][place.key];
        if is_certain {
            known.clear();
        }
        for state in states {
            if !known.contains(&state) {
                known.push(state);
            }
        }
    }

    /// What changes something needs the number itself.
    fn knows_number(&mut self, place: Place, is_done: bool) {
        self.has_stand_in &= place.space == 0 || !is_done;
    }

    async fn step(&mut self, step: Step, failing: Option<usize>) -> Result<(), TestCaseError> {
        let failing = match &self.below {
            Below::Map(_) if matches!(step, Step::Race(_)) => false,
            Below::Map(store) => {
                store.fail_after(failing);
                failing.is_some()
            }
            _ => false,
        };
        let looks_into_namespace =
            matches!(&step, Step::Get(place, _) | Step::Load(place, _) if place.space > 0);
        let failures = self.spaces[0].stats().store_failures;
        match step {
            Step::Put(place, kind, size, ttl, may_be_stale) => {
                let made = self.make(place.kind(kind), size);
                self.put(place, made, ttl, may_be_stale, failing).await?;
            }
            Step::Get(place, kind) => {
                let seen = get(&self.spaces[place.space], place.name(), kind).await;
                self.check_get(place, kind, &seen, failing)?;
            }
            Step::GetElsewhere(key, kind) => {
                let place = Place { space: 0, key };
                if let Some(elsewhere) = &self.elsewhere {
                    let seen = get(elsewhere, place.name(), kind).await;
                    self.check_get(place, kind, &seen, failing)?;
                }
            }
            Step::Load(place, mut load) => {
                load.kind = place.kind(load.kind);
                if let Gives::Value(made) = load.gives {
                    load.gives = Gives::Value(self.make(load.kind, made.size));
                }
                self.load(place, &load, failing).await?;
            }
            Step::Remove(place) => {
                let removed = self.spaces[place.space].remove(place.name()).await;
                self.changed(place, removed, failing, |_| State::Gone)?;
            }
            Step::Expire(place) => {
                let expired = self.spaces[place.space].expire(place.name()).await;
                self.changed(place, expired, failing, State::expired)?;
            }
            Step::Invalidate => {
                let invalidated = self.spaces[1].invalidate().await;
                let may_fail = failing || self.is_limited() || matches!(self.below, Below::Nothing);
                prop_assert!(may_fail || invalidated.is_ok(), "{invalidated:?}");
                self.is_namespace_unsure = invalidated.is_err();
                self.has_stand_in &= invalidated.is_err();
                for key in 0..KEYS {
                    let place = Place { space: 1, key };
                    self.set(place, vec![State::Gone], true);
                }
            }
            Step::Race(race) => self.race(race).await?,
            Step::Wait => tokio::time::sleep(SHORT + Duration::from_millis(1)).await,
        }
        self.settle().await;
        if looks_into_namespace && self.spaces[0].stats().store_failures > failures {
            self.has_stand_in = true;
        }
        if let Below::Map(store) = &self.below {
            store.fail_after(None);
        }
        self.check()
    }

    fn make(&mut self, kind: Kind, size: usize) -> Made {
        self.numbers += 1;
        let number = self.numbers;
        Made { kind, number, size }
    }

    /// Waits until nothing runs in the background.
    async fn settle(&self) {
        while Handle::current().metrics().num_alive_tasks() > 0 {
            tokio::time::sleep(Duration::from_micros(50)).await;
        }
    }

    /// What holds after each step.
    fn check(&self) -> Result<(), TestCaseError> {
        let cache = &self.spaces[0];
        prop_assert_eq!(cache.memory_budget().used(), 0);
        prop_assert_eq!(cache.stats().corrupt, 0);
        match cache.stats().l1 {
            Some(l1) => {
                prop_assert_eq!(l1.budget_bytes, self.l1_bytes);
                prop_assert!(l1.bytes <= l1.budget_bytes, "{:?}", l1);
            }
            None => prop_assert_eq!(self.l1_bytes, 0),
        }
        Ok(())
    }

    async fn put(
        &mut self,
        place: Place,
        made: Made,
        ttl: Ttl,
        may_be_stale: bool,
        failing: bool,
    ) -> Result<(), TestCaseError> {
        let cache = &self.spaces[place.space];
        let outcome = put(cache, place.name(), made, ttl, may_be_stale).await;
        self.knows_number(place, outcome.is_ok());
        match outcome {
            Ok(outcome) if outcome.is_stored() => {
                self.set(place, State::written(Some(made), ttl, may_be_stale), true);
            }
            // The process does not keep it, nor what was there before.
            Ok(_) if self.is_local(place) => self.set(place, vec![State::Gone], true),
            Ok(outcome) => prop_assert!(self.is_limited(), "{outcome:?}"),
            Err(error) => prop_assert!(failing, "{error}"),
        }
        Ok(())
    }

    fn check_get(
        &self,
        place: Place,
        kind: Kind,
        seen: &Seen,
        failing: bool,
    ) -> Result<(), TestCaseError> {
        let states = self.possible(place);
        let is_local = self.is_local(place);
        let allowed: Vec<_> = states
            .iter()
            .map(|state| state.get(kind, is_local))
            .collect();
        let is_excused =
            failing && matches!(seen, Seen::Nothing | Seen::Error(ErrorKind::Transient));
        prop_assert!(
            is_excused || allowed.contains(seen),
            "{place:?} {kind:?}: {seen:.40?} of {states:?}"
        );
        Ok(())
    }

    async fn load(
        &mut self,
        place: Place,
        load: &Load,
        failing: bool,
    ) -> Result<(), TestCaseError> {
        let ran = Arc::new(AtomicBool::new(false));
        let seen = run_load(&self.spaces[place.space], place.name(), load, &ran).await;
        // A refresh runs beside the caller.
        self.settle().await;
        let ran = ran.load(SeqCst);
        let mut states = self.possible(place);
        if failing {
            states.push(State::Gone);
        }
        let is_local = self.is_local(place);
        let is_put_off = &mut self.is_put_off[place.space][place.key];
        let may_rest = *is_put_off && !ran;
        *is_put_off |= failing || ran && matches!(load.gives, Gives::Error);
        let is_allowed = states.iter().any(|state| {
            let (expected, runs) = state.load(load, is_local);
            // A store that fails may keep a refresh from running.
            seen == expected && (failing || may_rest || runs.is_none_or(|runs| runs == ran))
        });
        let is_excused = failing && seen == Seen::Error(ErrorKind::Transient);
        prop_assert!(
            is_excused || is_allowed,
            "{place:?} {load:?}: {seen:.40?}, ran: {ran}, of {states:?}"
        );
        if let Some(mut written) = load.writes(&states).filter(|_| ran) {
            // What is short may be over between the look at what is to be replaced and the write, which is refused then.
            let is_short = |state: &State| {
                matches!(
                    state,
                    State::Held {
                        ttl: Ttl::Short,
                        ..
                    }
                )
            };
            if !is_local && states.iter().any(is_short) {
                written.push(State::Gone);
            }
            let is_certain = !failing && !self.is_limited();
            self.set(place, written, is_certain);
        }
        Ok(())
    }

    /// What is put or removed while somebody reads is what is there afterwards.
    async fn race(&mut self, race: Race) -> Result<(), TestCaseError> {
        let place = race.place;
        let mut load = race.load;
        load.kind = place.kind(load.kind);
        if let Gives::Value(made) = load.gives {
            load.gives = Gives::Value(self.make(load.kind, made.size));
        }
        let kind = place.kind(race.kind);
        let puts = race.puts.map(|size| self.make(kind, size));
        if let Below::Map(store) = &self.below {
            store.pause(Some(race.seed));
        }
        let cache = &self.spaces[place.space];
        let ran = Arc::new(AtomicBool::new(false));
        let reader = async {
            for _ in 0..race.seed / 20 % 20 {
                yield_now().await;
            }
            if race.loads {
                run_load(cache, place.name(), &load, &ran).await
            } else {
                get(cache, place.name(), kind).await
            }
        };
        let change = async {
            for _ in 0..race.seed % 20 {
                yield_now().await;
            }
            let ran_before = ran.load(SeqCst);
            let changed = match puts {
                Some(made) => put(cache, place.name(), made, Ttl::Endless, false)
                    .await
                    .map(|outcome| outcome.is_stored()),
                None => cache.remove(place.name()).await.map(|_| true),
            };
            let after = get(cache, place.name(), kind).await;
            (changed.unwrap(), ran_before, after)
        };
        let (seen, (is_changed, ran_before, after)) = tokio::join!(reader, change);
        self.settle().await;
        if let Below::Map(store) = &self.below {
            store.pause(None);
        }

        self.is_put_off[place.space][place.key] |= race.loads;
        let is_local = self.is_local(place);
        prop_assert!(is_changed || is_local || self.is_limited());
        let changed = match puts {
            Some(made) if is_changed => State::written(Some(made), Ttl::Endless, false),
            _ if is_changed || is_local => vec![State::Gone],
            _ => Vec::new(),
        };
        let mut states = self.possible(place);
        states.extend(&changed);
        let is_allowed = states.iter().any(|state| {
            let expected = match race.loads {
                true => state.load(&load, is_local).0,
                false => state.get(kind, is_local),
            };
            seen == expected
        });
        prop_assert!(is_allowed, "{race:?}: {seen:.40?} of {states:?}");
        self.knows_number(place, is_changed);
        let is_replaced = !changed.is_empty();
        // Nothing else can have made the load's value the newer one than that it began later.
        let is_found = changed.iter().all(|state| {
            let (_, runs) = state.load(&load, is_local);
            runs == Some(false)
        });
        self.set(place, changed, is_replaced);
        let may_come_later = !ran_before && (!is_found || is_local || self.is_limited());
        if let Some(written) = load.writes(&states).filter(|_| ran.load(SeqCst))
            && (!is_replaced || may_come_later)
        {
            self.set(place, written, false);
        }
        // Also for those who come while the reader is still at it.
        self.check_get(place, kind, &after, false)?;
        let seen = get(&self.spaces[place.space], place.name(), kind).await;
        self.check_get(place, kind, &seen, false)
    }

    /// An entry was removed or told to expire; `found` says whether there was one.
    fn changed(
        &mut self,
        place: Place,
        found: Result<bool, Error>,
        failing: bool,
        change: impl Fn(State) -> State,
    ) -> Result<(), TestCaseError> {
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                prop_assert!(failing, "{error}");
                return Ok(());
            }
        };
        self.knows_number(place, true);
        let states = self.possible(place);
        let is_allowed = states.iter().any(|state| (*state != State::Gone) == found);
        prop_assert!(is_allowed || failing, "found: {found}, of {states:?}");
        self.set(place, states.into_iter().map(change).collect(), true);
        Ok(())
    }

    /// What the process alone holds is charged.
    async fn check_charge(&self) -> Result<(), TestCaseError> {
        if !matches!(self.below, Below::Nothing) {
            return Ok(());
        }
        let mut found = 0;
        for (space, states) in self.states.iter().enumerate() {
            for (key, states) in states.iter().enumerate() {
                for state in states {
                    let State::Held {
                        made: Some(made), ..
                    } = state
                    else {
                        continue;
                    };
                    let place = Place { space, key };
                    if let Seen::Value(value) =
                        get(&self.spaces[space], place.name(), made.kind).await
                    {
                        found += value.len() as u64;
                        break;
                    }
                }
            }
        }
        let held = self.spaces[0].stats().l1.map_or(0, |l1| l1.bytes);
        prop_assert!(found <= held, "{found} bytes found, {held} charged");
        Ok(())
    }
}

fn put_options(ttl: Ttl, may_be_stale: bool) -> PutOptions {
    let options = match ttl {
        Ttl::Endless => PutOptions::new(),
        Ttl::Long => PutOptions::new().with_ttl(LONG),
        Ttl::Short => PutOptions::new().with_ttl(SHORT),
    };
    if may_be_stale {
        options.with_stale_for(LONG)
    } else {
        options
    }
}

async fn put(
    cache: &Cache,
    name: String,
    made: Made,
    ttl: Ttl,
    may_be_stale: bool,
) -> Result<Outcome, Error> {
    let options = put_options(ttl, may_be_stale);
    match made.kind {
        Kind::Table => cache.put_table(name, made.table(), &options).await,
        Kind::Bytes => cache.put_bytes(name, made.bytes(), &options).await,
        Kind::Text => {
            let value = MessagePack(made.text());
            cache.put(&TextKey(name), value, &options).await
        }
        Kind::Numbers => {
            let value = MessagePack(made.numbers());
            cache.put(&NumbersKey(name), value, &options).await
        }
        Kind::Private => cache.put(&PrivateKey(name), made.text(), &options).await,
    }
}

async fn get(cache: &Cache, name: String, kind: Kind) -> Seen {
    match kind {
        Kind::Table => seen(cache.get_table(name).await, |table| bytes_of_table(&table)),
        Kind::Bytes => seen(cache.get_bytes(name).await, Into::into),
        Kind::Text => seen(cache.get(&TextKey(name)).await, |text| {
            text.0.clone().into()
        }),
        Kind::Numbers => seen(cache.get(&NumbersKey(name)).await, |numbers| {
            bytes_of_numbers(&numbers.0)
        }),
        Kind::Private => seen(cache.get(&PrivateKey(name)).await, |text| {
            text.as_bytes().to_vec()
        }),
    }
}

fn seen<T>(found: Result<Option<T>, Error>, bytes: impl Fn(T) -> Vec<u8>) -> Seen {
    match found {
        Ok(Some(value)) => Seen::Value(bytes(value)),
        Ok(None) => Seen::Nothing,
        Err(error) => Seen::Error(error.kind()),
    }
}

/// What the load gives. Its loader sets `ran`.
async fn run_load(cache: &Cache, name: String, load: &Load, ran: &Arc<AtomicBool>) -> Seen {
    let mut options = LoadOptions::new()
        .with_put(put_options(load.ttl, load.may_be_stale))
        .with_load_bytes(1000);
    if load.is_ahead {
        options = options.with_refresh_ahead(2 * LONG);
    }
    if load.remembers_absence {
        options = options.with_absent_ttl(LONG);
    }
    let given = {
        let (ran, gives) = (Arc::clone(ran), load.gives);
        move || async move {
            ran.store(true, SeqCst);
            match gives {
                Gives::Value(made) => Ok(Some(made)),
                Gives::Nothing => Ok(None),
                Gives::Error => Err(Error::new(LOADER_FAILS, "as told")),
            }
        }
    };
    match load.kind {
        Kind::Table => {
            let loader = || async { Ok::<_, Error>(given().await?.map(Made::table)) };
            let loaded = cache.get_or_load_table(name, &options, loader).await;
            seen(loaded, |table| bytes_of_table(&table))
        }
        Kind::Numbers => {
            let made = |made: Made| MessagePack(made.numbers());
            let loader = move || async move { Ok::<_, Error>(given().await?.map(made)) };
            let loaded = cache.get_or_load(&NumbersKey(name), &options, loader).await;
            seen(loaded, |numbers| bytes_of_numbers(&numbers.0))
        }
        Kind::Text => {
            let made = |made: Made| MessagePack(made.text());
            let loader = move || async move { Ok::<_, Error>(given().await?.map(made)) };
            let loaded = cache.get_or_load(&TextKey(name), &options, loader).await;
            seen(loaded, |text| text.0.clone().into())
        }
        Kind::Private | Kind::Bytes => {
            let loader = || async { Ok::<_, Error>(given().await?.map(Made::text)) };
            let loaded = cache.get_or_load(&PrivateKey(name), &options, loader).await;
            seen(loaded, |text| text.as_bytes().to_vec())
        }
    }
}

fn run(
    below: Below,
    setting: &Setting,
    steps: Vec<(Step, Option<usize>)>,
) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut run = Run::new(below, setting);
        for (step, failing) in steps {
            run.step(step, failing).await?;
        }
        run.check_charge().await
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_process_alone_is_a_map_that_may_forget(setting in setting(), steps in steps()) {
        run(Below::Nothing, &setting, steps)?;
    }

    #[test]
    fn over_a_directory_the_tiers_are_a_map(setting in setting(), steps in steps()) {
        run(Below::File(tempfile::tempdir().unwrap(), ""), &setting, steps)?;
    }

    #[test]
    fn over_a_directory_with_a_limit_the_tiers_are_a_map_that_may_forget(
        setting in setting(),
        steps in steps(),
    ) {
        let options = "?limit_bytes=300KiB&value_limit_bytes=50KiB";
        run(Below::File(tempfile::tempdir().unwrap(), options), &setting, steps)?;
    }

    #[test]
    fn over_a_store_that_fails_the_tiers_never_make_things_up(setting in setting(), steps in steps()) {
        run(Below::Map(MapStore::default()), &setting, steps)?;
    }
}
