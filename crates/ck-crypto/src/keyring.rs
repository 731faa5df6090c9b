use std::env::VarError;
use std::fmt;
use std::sync::Arc;

use ck_core::{Error, ErrorKind, Result};
use ring::aead::LessSafeKey;
use ring::{digest, hkdf};
use zeroize::Zeroizing;

use crate::MasterKey;
use crate::secret::{KEY_BYTES, Secret, Wiped, aead};

/// The tenant of those who name none, as in the Python client.
pub const DEFAULT_TENANT: &str = "default";

/// The most previous keys, as in the Python client.
const MOST_PREVIOUS: usize = 3;

/// What the keys are for.
const SINGLE_SHOT: &str = "encryption";
const CHUNKS: &str = "ck-chunks";

/// The keys of one tenant: one that encrypts, and previous ones that only decrypt.
///
/// An entry names its key by a fingerprint; no other key is tried. Clones share the keys, which are wiped with the
/// last of them.
///
/// # Examples
///
/// ```
/// use ck_crypto::{Keyring, MasterKey};
///
/// let (old, new) = (MasterKey::generate()?, MasterKey::generate()?);
/// let before = Keyring::new(&old, &[], "acme")?;
/// let after = Keyring::new(&new, &[old], "acme")?;
/// assert!(after.has(before.fingerprint()) && !before.has(after.fingerprint()));
/// # Ok::<(), ck_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Keyring(Arc<Keys>);

struct Keys {
    tenant: String,
    /// The one that encrypts stands first.
    keys: Vec<TenantKey>,
}

/// What one master key gives for one tenant.
pub(crate) struct TenantKey {
    fingerprint: Fingerprint,
    pub(crate) single_shot: Wiped<LessSafeKey>,
    /// What the keys of chunked entries are derived from.
    pub(crate) chunks: Secret,
}

/// What tells one key of a tenant from another: the first 16 bytes of a hash, 32 hexadecimal digits as text. It says
/// nothing of the key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 16]);

impl Keyring {
    /// The keys of `tenant`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misuse`] for a tenant of no or more than 65,535 bytes, for more than three previous keys, and when
    /// the current key is among them: a key that was replaced must not encrypt again.
    pub fn new(current: &MasterKey, previous: &[MasterKey], tenant: &str) -> Result<Self> {
        let misuse = |message: &str| Error::new(ErrorKind::Misuse, message);
        if previous.len() > MOST_PREVIOUS {
            return Err(
                misuse("there are more previous master keys than can be kept")
                    .with("keys", previous.len())
                    .with("most", MOST_PREVIOUS),
            );
        }
        if previous.contains(current) {
            return Err(misuse(
                "the master key is also a previous one: a key that was replaced must not be used again",
            ));
        }
        if tenant.is_empty() {
            return Err(misuse("a tenant has a name"));
        }
        let keys = [current].into_iter().chain(previous);
        let keys = keys.map(|master| TenantKey::derive(master, tenant));
        Ok(Self(Arc::new(Keys {
            tenant: tenant.to_owned(),
            keys: keys.collect::<Result<_>>()?,
        })))
    }

    /// The keys that the environment names, as the Python client reads them; `None` when it names none.
    ///
    /// `CACHEKIT_MASTER_KEY` is the key, `CACHEKIT_PREVIOUS_MASTER_KEYS` are previous ones with commas between them, all
    /// in hexadecimal digits. The tenant is the UUID in `CACHEKIT_DEPLOYMENT_UUID`, in lower case and with hyphens, or
    /// [`DEFAULT_TENANT`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misuse`] naming the variable, for what [`MasterKey::from_hex`] and [`Keyring::new`] refuse, for a
    /// tenant that is no UUID, and for a variable that is not UTF-8.
    pub fn from_env() -> Result<Option<Self>> {
        Self::from_variables(|name| match std::env::var(name) {
            Ok(text) => Ok(Some(text)),
            Err(VarError::NotPresent) => Ok(None),
            // Without its text: it may be most of a key.
            Err(VarError::NotUnicode(_)) => Err(Error::new(
                ErrorKind::Misuse,
                "a variable of the environment is not UTF-8",
            )
            .with("variable", name)),
        })
    }

    fn from_variables(
        variable: impl Fn(&'static str) -> Result<Option<String>>,
    ) -> Result<Option<Self>> {
        const CURRENT: &str = "CACHEKIT_MASTER_KEY";
        const PREVIOUS: &str = "CACHEKIT_PREVIOUS_MASTER_KEYS";
        const TENANT: &str = "CACHEKIT_DEPLOYMENT_UUID";
        let text = |name| Ok::<_, Error>(Zeroizing::new(variable(name)?.unwrap_or_default()));
        let key = |name, text: &str| {
            MasterKey::from_hex(text).map_err(|error| error.with("variable", name))
        };
        let current = text(CURRENT)?;
        if current.trim().is_empty() {
            return Ok(None);
        }
        let current = key(CURRENT, &current)?;
        let previous = text(PREVIOUS)?;
        let previous = previous.split(',').filter(|text| !text.trim().is_empty());
        let previous: Vec<_> = previous
            .map(|text| key(PREVIOUS, text))
            .collect::<Result<_>>()?;
        let tenant = text(TENANT)?;
        let tenant = match tenant.trim() {
            "" => DEFAULT_TENANT.to_owned(),
            text => uuid(text).ok_or_else(|| {
                Error::new(
                    ErrorKind::Misuse,
                    "the tenant of the environment is no UUID",
                )
                .with("variable", TENANT)
            })?,
        };
        // The tenant is well-formed: what can be wrong is the previous keys.
        let keyring = Self::new(&current, &previous, &tenant);
        keyring
            .map(Some)
            .map_err(|error| error.with("variable", PREVIOUS))
    }

    /// Whose keys these are.
    #[must_use]
    pub fn tenant(&self) -> &str {
        &self.0.tenant
    }

    /// The fingerprint of the key that encrypts.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.current().fingerprint
    }

    /// Whether a key with this fingerprint is here.
    #[must_use]
    pub fn has(&self, fingerprint: Fingerprint) -> bool {
        self.find(fingerprint).is_some()
    }

    pub(crate) fn current(&self) -> &TenantKey {
        &self.0.keys[0]
    }

    pub(crate) fn find(&self, fingerprint: Fingerprint) -> Option<&TenantKey> {
        self.0
            .keys
            .iter()
            .find(|key| key.fingerprint == fingerprint)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fingerprints: Vec<_> = self.0.keys.iter().map(|key| key.fingerprint).collect();
        f.debug_struct("Keyring")
            .field("tenant", &self.0.tenant)
            .field("keys", &fingerprints)
            .finish()
    }
}

impl TenantKey {
    fn derive(master: &MasterKey, tenant: &str) -> Result<Self> {
        let key = derive(master, SINGLE_SHOT, tenant)?;
        Ok(Self {
            fingerprint: Fingerprint::of(&key),
            single_shot: aead(&key).ok_or_else(failed)?,
            chunks: derive(master, CHUNKS, tenant)?,
        })
    }
}

impl Fingerprint {
    /// The first 16 bytes of SHA-256 over a label and the key, as the Python client has it.
    fn of(key: &Secret) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"key_fingerprint_v1");
        context.update(key.bytes());
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&context.finish().as_ref()[..16]);
        Self(fingerprint)
    }

    /// The fingerprint that `text` spells in 32 lower-case hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.bytes().map(|digit| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        });
        let digits = digits.collect::<Option<Vec<_>>>()?;
        let mut bytes = [0; 16];
        if digits.len() != 2 * bytes.len() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The key of a tenant for one purpose: HKDF-SHA256 with the salt `cachekit_v1_`, the length of the purpose in a byte, the
/// purpose, the length of the tenant in two bytes, the tenant; the info is the purpose.
fn derive(master: &MasterKey, purpose: &str, tenant: &str) -> Result<Secret> {
    let too_long = || {
        Error::new(
            ErrorKind::Misuse,
            "the name of a tenant has 65,535 bytes at most",
        )
        .with("bytes", tenant.len())
    };
    let purpose_len = u8::try_from(purpose.len()).map_err(|_| failed())?;
    let tenant_len = u16::try_from(tenant.len()).map_err(|_| too_long())?;
    let salt = [
        b"cachekit_v1_",
        &[purpose_len][..],
        purpose.as_bytes(),
        &tenant_len.to_be_bytes(),
        tenant.as_bytes(),
    ];
    expand(master.bytes(), &salt.concat(), purpose.as_bytes())
}

/// HKDF-SHA256 ([RFC 5869](https://www.rfc-editor.org/rfc/rfc5869)), 32 bytes.
pub(crate) fn expand(secret: &[u8], salt: &[u8], info: &[u8]) -> Result<Secret> {
    struct Length;
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            KEY_BYTES
        }
    }
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, salt);
    let extracted = Wiped::new(salt.extract(secret));
    Secret::new(|key| {
        let info = [info];
        let okm = extracted
            .get()
            .expand(&info, Length)
            .map_err(|_| failed())?;
        okm.fill(key).map_err(|_| failed())
    })
}

/// A UUID in the form that the Python client derives keys from, which is that of Python's `str(uuid.UUID(text))`.
fn uuid(text: &str) -> Option<String> {
    let text = text.replace("urn:", "").replace("uuid:", "");
    let digits = text
        .trim_matches(['{', '}'])
        .replace('-', "")
        .to_ascii_lowercase();
    if digits.len() != 32 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let groups = [
        &digits[..8],
        &digits[8..12],
        &digits[12..16],
        &digits[16..20],
        &digits[20..],
    ];
    Some(groups.join("-"))
}

fn failed() -> Error {
    Error::new(ErrorKind::Permanent, "a key could not be derived")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> MasterKey {
        MasterKey::from_hex(&format!("{byte:02x}").repeat(32)).unwrap()
    }

    #[test]
    fn the_fingerprint_is_that_of_the_python_client() {
        // shared vectors, encrypted/arrow.ck
        let keyring =
            Keyring::new(&key(0xaa), &[], "00000000-0000-0000-0000-000000000001").unwrap();
        assert_eq!(
            keyring.fingerprint().to_string(),
            "1dc64d1e146a47691b36083b01385ee0"
        );
        let parsed = Fingerprint::parse("1dc64d1e146a47691b36083b01385ee0").unwrap();
        assert!(keyring.has(parsed));
        for wrong in [
            "",
            "1d",
            "1DC64D1E146A47691B36083B01385EE0",
            "1dc64d1e146a47691b36083b01385ee00",
        ] {
            assert_eq!(Fingerprint::parse(wrong), None);
        }
    }

    #[test]
    fn keyrings_out_of_range_are_refused() {
        let misuse = |current, previous: &[MasterKey], tenant: &str| {
            let error = Keyring::new(&key(current), previous, tenant).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misuse, "{error}");
        };
        misuse(1, &[key(1)], "a");
        misuse(1, &[key(2), key(3), key(4), key(5)], "a");
        misuse(1, &[], "");
        misuse(1, &[], &"a".repeat(65_536));
        Keyring::new(&key(1), &[key(2), key(3), key(4)], &"a".repeat(65_535)).unwrap();
    }

    #[test]
    fn the_environment_names_keys_and_tenant() {
        let read = |variables: &[(&str, &str)]| {
            Keyring::from_variables(|name| {
                let found = variables.iter().find(|(known, _)| *known == name);
                Ok(found.map(|(_, text)| (*text).to_owned()))
            })
        };
        let (one, two) = ("11".repeat(32), "22".repeat(32));
        assert!(
            read(&[("CACHEKIT_PREVIOUS_MASTER_KEYS", &one)])
                .unwrap()
                .is_none()
        );
        let keyring = read(&[("CACHEKIT_MASTER_KEY", &one)]).unwrap().unwrap();
        assert_eq!(keyring.tenant(), DEFAULT_TENANT);
        let previous = format!(" {one} ,,");
        let rotated = [
            ("CACHEKIT_MASTER_KEY", &two[..]),
            ("CACHEKIT_PREVIOUS_MASTER_KEYS", &previous),
        ];
        let rotated = read(&rotated).unwrap().unwrap();
        assert!(rotated.has(keyring.fingerprint()));
        assert_ne!(rotated.fingerprint(), keyring.fingerprint());
        let error = read(&[("CACHEKIT_MASTER_KEY", "no key")])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("CACHEKIT_MASTER_KEY") && !error.contains("no key"),
            "{error}"
        );
        let tenant = |text| {
            let variables = [
                ("CACHEKIT_MASTER_KEY", &one[..]),
                ("CACHEKIT_DEPLOYMENT_UUID", text),
            ];
            read(&variables).map(|keyring| keyring.unwrap().tenant().to_owned())
        };
        let canonical = "0123abcd-0000-4000-8000-0000000000ef";
        for text in [
            canonical,
            " 0123ABCD-0000-4000-8000-0000000000EF ",
            "{0123abcd-0000-4000-8000-0000000000ef}",
            "urn:uuid:0123abcd000040008000-0000000000ef",
        ] {
            assert_eq!(tenant(text).unwrap(), canonical);
        }
        for text in [
            "acme",
            "0123abcd-0000-4000-8000-0000000000e",
            "0123abcd-0000-4000-8000-0000000000eg",
        ] {
            let error = tenant(text).unwrap_err();
            assert!(
                error.to_string().contains("CACHEKIT_DEPLOYMENT_UUID"),
                "{error}"
            );
        }
    }

    #[test]
    fn nothing_of_the_keys_is_shown() {
        let keyring = Keyring::new(&key(0xab), &[key(0xcd)], "acme").unwrap();
        let shown = format!("{keyring:?}");
        assert!(shown.contains("acme"), "{shown}");
        // Nor of those that are derived from them.
        let derived = keyring.current().chunks.bytes();
        let derived: [String; 2] = [
            derived[..4]
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
            format!("{:?}", &derived[..4])
                .trim_end_matches(']')
                .to_owned(),
        ];
        let given = ["abab", "cdcd", "171, 171", "205, 205"].map(str::to_owned);
        for secret in given.iter().chain(&derived) {
            assert!(!shown.contains(secret.trim_start_matches('[')), "{shown}");
        }
    }
}
