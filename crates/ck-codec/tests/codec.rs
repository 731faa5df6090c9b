//! Guards against values that are taken for something they are not.
#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a test fails by panicking"
)]

mod common;

use std::any::Any;
use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use bytes::Bytes;
use ck_arrow::Table;
use ck_codec::{CacheCodec, CacheCodecImpl, CacheKey, Tensor};
use ck_core::{Error, ErrorKind, Result};
use common::{batch, stored, table, tensor};

/// The same type at two versions.
#[derive(Debug)]
struct Versioned<const VERSION: u32>;

impl<const VERSION: u32> CacheCodecImpl for Versioned<VERSION> {
    const TYPE: &'static str = "test.versioned";
    const VERSION: u32 = VERSION;

    fn serialize(&self, _: &mut dyn Write) -> Result<()> {
        Ok(())
    }

    fn deserialize(data: &Bytes) -> Result<Self> {
        assert!(data.is_empty());
        Ok(Self)
    }
}

#[test]
fn a_key_has_no_codec_unless_it_says_so() {
    struct Key;

    impl CacheKey for Key {
        type Value = Vec<u8>;

        fn key(&self) -> Cow<'_, str> {
            "key".into()
        }

        fn heap_bytes(value: &Vec<u8>, _mapping: Option<&Bytes>) -> u64 {
            value.capacity() as u64
        }
    }

    assert!(Key.codec().is_none());
}

#[test]
fn a_value_of_another_type_is_refused_before_anything_is_written() {
    let value: Arc<dyn Any + Send + Sync> = Arc::new(7_u32);
    let mut written = Vec::new();
    let error = CacheCodec::of::<Table>()
        .serialize(&value, &mut written)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse);
    assert!(written.is_empty());
}

#[test]
fn stored_values_of_another_type_are_unsupported() {
    let codecs = [
        CacheCodec::of::<Bytes>(),
        CacheCodec::of::<Table>(),
        CacheCodec::of::<RecordBatch>(),
        CacheCodec::of::<ArrayRef>(),
        CacheCodec::of::<Tensor>(),
        CacheCodec::of::<Versioned<1>>(),
    ];
    let values = [
        stored(Bytes::from_static(b"bytes")),
        stored(table()),
        stored(batch()),
        stored::<ArrayRef>(batch().column(0).clone()),
        stored(tensor()),
        stored(Versioned::<1>),
    ];
    for (of, value) in values.iter().enumerate() {
        for (by, codec) in codecs.iter().enumerate() {
            match codec.deserialize(value) {
                Ok(_) => assert_eq!(by, of),
                Err(error) => {
                    assert_ne!(by, of, "{error}");
                    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
                }
            }
        }
    }
}

#[test]
fn stored_values_of_another_version_are_unsupported() {
    let codec = CacheCodec::of::<Versioned<2>>();
    assert_eq!((codec.type_name(), codec.version()), ("test.versioned", 2));
    let error = codec.deserialize(&stored(Versioned::<1>)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("test.versioned 1"), "{error}");
    codec.deserialize(&stored(Versioned::<2>)).unwrap();
}

#[cfg(feature = "messagepack")]
#[test]
fn serde_values_come_back_and_other_ones_do_not() {
    use ck_codec::MessagePack;
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Model {
        name: String,
        weights: Vec<f32>,
        parent: Option<Box<Model>>,
    }

    let leaf = Model {
        name: "leaf".to_owned(),
        weights: vec![0.5; 3],
        parent: None,
    };
    let model = Model {
        parent: Some(Box::new(leaf.clone())),
        ..leaf
    };
    let bytes = stored(MessagePack::<_, 3>(model.clone()));
    let found: MessagePack<Model, 3> = common::loaded(&bytes).unwrap();
    assert_eq!(found.0, model);
    let kind = |error: Error| error.kind();
    let later = common::loaded::<MessagePack<Model, 4>>(&bytes).map_err(kind);
    assert_eq!(later.unwrap_err(), ErrorKind::Unsupported);
    let other = common::loaded::<MessagePack<Vec<u8>, 3>>(&bytes).map_err(kind);
    assert_eq!(other.unwrap_err(), ErrorKind::Corrupt);
    let longer = common::aligned(&[&bytes[..], b"!"].concat());
    let longer = common::loaded::<MessagePack<Model, 3>>(&longer).map_err(kind);
    assert_eq!(longer.unwrap_err(), ErrorKind::Corrupt);
}

#[test]
fn a_type_without_a_name_or_with_a_long_one_cannot_be_stored() {
    struct Nameless;
    struct Long;
    macro_rules! named {
        ($type:ident, $name:expr) => {
            impl CacheCodecImpl for $type {
                const TYPE: &'static str = $name;
                const VERSION: u32 = 1;

                fn serialize(&self, _: &mut dyn Write) -> Result<()> {
                    Ok(())
                }

                fn deserialize(_: &Bytes) -> Result<Self> {
                    Ok(Self)
                }
            }
        };
    }
    const LONG: &str = match std::str::from_utf8(&[b'a'; 256]) {
        Ok(name) => name,
        Err(_) => "",
    };
    named!(Nameless, "");
    named!(Long, LONG);
    let refused = |codec: CacheCodec, value: Arc<dyn Any + Send + Sync>| {
        let error = codec.serialize(&value, &mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse, "{error}");
    };
    refused(CacheCodec::of::<Nameless>(), Arc::new(Nameless));
    refused(CacheCodec::of::<Long>(), Arc::new(Long));
}

#[test]
fn errors_of_the_writer_come_back_with_their_kind() {
    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::other(Error::new(ErrorKind::TooLarge, "no room")))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let value: Arc<dyn Any + Send + Sync> = Arc::new(table());
    let error = CacheCodec::of::<Table>()
        .serialize(&value, &mut Full)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
}
