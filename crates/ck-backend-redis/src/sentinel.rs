use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{Client, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, TlsMode};

use crate::address::{Certificates, Fleet, malformed, refuse};
use crate::error::Fault;

/// Servers that know which server is the primary now.
#[derive(Clone)]
pub(crate) struct Sentinels {
    addresses: Vec<ConnectionAddr>,
    /// What they call the primary.
    name: String,
    user: Option<String>,
    password: Option<String>,
    database: i64,
    protocol: ProtocolVersion,
    over_tls: bool,
    #[cfg(feature = "tls")]
    certificates: Certificates,
}

impl Sentinels {
    /// Where sentinels listen unless they are told otherwise.
    const PORT: u16 = 26_379;

    /// `//user:password@host1:port,host2:port/name?db=0&protocol=resp3`.
    pub(crate) fn parse(
        over_tls: bool,
        rest: &str,
        certificates: &Certificates,
    ) -> Result<Self, Fault> {
        #[cfg(not(feature = "tls"))]
        let _ = certificates;
        let fleet = Fleet::parse(rest)?;
        if fleet.path.is_empty() {
            return Err(refuse(
                "it does not say what the sentinels call the primary: `/name`",
            ));
        }
        let (mut database, mut options) = (0, Vec::new());
        for option in fleet.query.trim_start_matches('?').split('&') {
            match option.split_once('=') {
                Some(("db", number)) => {
                    let number = number.parse();
                    database = number.map_err(|_| refuse("`db` is not a number"))?;
                }
                Some(("protocol", _)) => options.push(option),
                _ if option.is_empty() => {}
                _ => return Err(refuse("its options are not `db` and `protocol`")),
            }
        }
        let (user, options) = (fleet.user, options.join("&"));
        let scheme = if over_tls { "rediss" } else { "redis" };
        // The crate's own reading of names, passwords and hosts.
        let read = |host: &str| {
            let url = format!("{scheme}://{user}{host}/?{options}");
            url.into_connection_info().map_err(malformed)
        };
        let mut addresses = Vec::with_capacity(fleet.hosts.len());
        for host in &fleet.hosts {
            let has_port = host
                .rsplit_once(':')
                .is_some_and(|(_, port)| !port.ends_with(']'));
            let host = match has_port {
                true => (*host).to_owned(),
                false => format!("{host}:{}", Self::PORT),
            };
            addresses.push(read(&host)?.addr().clone());
        }
        let info = read("primary")?;
        let settings = info.redis_settings();
        Ok(Self {
            addresses,
            name: fleet.path.to_owned(),
            user: settings.username().map(str::to_owned),
            password: settings.password().map(str::to_owned),
            database,
            protocol: settings.protocol(),
            over_tls,
            #[cfg(feature = "tls")]
            certificates: certificates.clone(),
        })
    }

    /// The server that is the primary now, and agrees.
    pub(crate) async fn primary(&self) -> Result<Client, Fault> {
        let kind = SentinelServerType::Master;
        let mut builder = SentinelClientBuilder::new(self.addresses.clone(), &self.name, kind)?
            .set_client_to_redis_db(self.database)
            .set_client_to_redis_protocol(self.protocol);
        if let Some(user) = &self.user {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = &self.password {
            builder = builder.set_client_to_redis_password(password);
        }
        if self.over_tls {
            builder = builder
                .set_client_to_redis_tls_mode(TlsMode::Secure)
                .set_client_to_sentinel_tls_mode(TlsMode::Secure);
            #[cfg(feature = "tls")]
            {
                builder = builder
                    .set_client_to_redis_certificates(self.certificates.clone().into())
                    .set_client_to_sentinel_certificates(self.certificates.clone().into());
            }
        }
        Ok(builder.build()?.async_get_client().await?)
    }
}
