//! A connection to a MySQL or MariaDB: the login, and statements whose rows are texts.
//!
//! Packets and what becomes of a password in them are those of `mysql_common`.
//!
//! Invariants:
//! - Nothing that a server sends takes more memory than one packet, of at most [`MAX_PACKET`]
//!   bytes, and each statement ends within [`ANSWER_TIMEOUT`].
//! - SECURITY: outside of this machine, a connection has TLS with a certificate that is verified,
//!   unless the URL says otherwise. A password is sent as it is through TLS or a socket alone.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use mysql_common::constants::CapabilityFlags;
use mysql_common::io::ParseBuf;
use mysql_common::packets::{AuthPlugin, AuthSwitchRequest, HandshakePacket};
use mysql_common::packets::{HandshakeResponse, SslRequest};
use mysql_common::proto::MySerialize as _;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::task::AbortOnDropHandle;

use super::url::{MysqlPlace, MysqlUrl};
use crate::clock::wait_while_running;
use crate::upstream::tls_for;

/// The largest packet that is read, in bytes: a row of which the payload is cut.
const MAX_PACKET: usize = 1 << 20;

/// How long a connection may take to become usable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a statement may take.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// How many packets a login may take.
const MAX_LOGIN_STEPS: usize = 8;

/// The name of the protocol, by which TLS is told what it is for.
const PROTOCOL: &[u8] = b"mysql";

/// `utf8mb4_general_ci`, which all servers know.
const COLLATION: u8 = 45;

/// The first bytes of packets.
const OK: u8 = 0x00;
const MORE: u8 = 0x01;
const END: u8 = 0xfe;
const ERROR: u8 = 0xff;
const NULL: u8 = 0xfb;

/// What `caching_sha2_password` says and is told.
const FAST_LOGIN: u8 = 3;
const FULL_LOGIN: u8 = 4;
const ASK_FOR_KEY: u8 = 2;

/// Begins a statement.
const COM_QUERY: u8 = 3;

/// What is said of a table or a column that is not there, of rights, and of locks.
const NO_RIGHT: [u16; 3] = [1142, 1143, 1044];
const NO_TABLE: u16 = 1146;
const LOCKED: [u16; 2] = [1205, 1213];

/// Why a connection is of no use.
#[derive(Debug)]
pub(super) enum MysqlError {
    /// The server refuses.
    Server { code: u16, state: String, message: String },
    /// Everything else.
    Other(String),
}

impl MysqlError {
    pub(super) fn is_without_right(&self) -> bool {
        matches!(self, Self::Server { code, .. } if NO_RIGHT.contains(code))
    }

    pub(super) fn is_locked(&self) -> bool {
        matches!(self, Self::Server { code, .. } if LOCKED.contains(code))
    }
}

impl fmt::Display for MysqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server { code, state, message } => {
                write!(f, "{message} (error {code}, SQLSTATE {state})")?;
                match *code {
                    NO_TABLE => f.write_str("; `sidecache sql mysql` prints what makes the table"),
                    code if NO_RIGHT.contains(&code) => {
                        f.write_str("; GRANT SELECT on the table to the user")
                    }
                    _ => Ok(()),
                }
            }
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl From<io::Error> for MysqlError {
    fn from(error: io::Error) -> Self {
        Self::Other(match error.kind() {
            io::ErrorKind::UnexpectedEof => "the connection was closed".to_owned(),
            _ => error.to_string(),
        })
    }
}

fn malformed() -> MysqlError {
    MysqlError::Other("it does not speak the protocol of MySQL".to_owned())
}

/// What carries the bytes.
trait MysqlStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> MysqlStream for S {}

/// A connection that is logged in.
pub(super) struct MysqlConnection {
    stream: BufReader<Box<dyn MysqlStream>>,
    /// The number of the next packet.
    sequence: u8,
    /// The packet that was read last.
    packet: Vec<u8>,
}

impl MysqlConnection {
    /// Connects, and logs in.
    pub(super) async fn open(url: MysqlUrl, ca_file: Option<&Path>) -> Result<Self, MysqlError> {
        let ca_file = ca_file.map(Path::to_owned);
        // A task of its own: should the library panic at what a server sends, the source goes on.
        let login = async move { Box::pin(Self::log_in(&url, ca_file.as_deref())).await };
        let login = AbortOnDropHandle::new(tokio::spawn(login));
        match tokio::time::timeout(CONNECT_TIMEOUT, login).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(malformed()),
            Err(_) => Err(MysqlError::Other(format!(
                "it did not answer within {} s",
                CONNECT_TIMEOUT.as_secs()
            ))),
        }
    }

    async fn log_in(url: &MysqlUrl, ca_file: Option<&Path>) -> Result<Self, MysqlError> {
        let stream: Box<dyn MysqlStream> = match &url.place {
            MysqlPlace::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            MysqlPlace::Socket(path) => Box::new(UnixStream::connect(path).await?),
        };
        let mut this = Self { stream: BufReader::new(stream), sequence: 0, packet: Vec::new() };
        this.receive().await?;
        this.check()?;
        let greeting = this.packet.clone();
        let greeting: HandshakePacket<'_> =
            ParseBuf(&greeting).parse(()).map_err(|_| malformed())?;
        let wanted = CapabilityFlags::CLIENT_LONG_PASSWORD
            | CapabilityFlags::CLIENT_PROTOCOL_41
            | CapabilityFlags::CLIENT_TRANSACTIONS
            | CapabilityFlags::CLIENT_SECURE_CONNECTION
            | CapabilityFlags::CLIENT_PLUGIN_AUTH
            | CapabilityFlags::CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA
            | CapabilityFlags::CLIENT_CONNECT_WITH_DB;
        let mut capabilities = wanted & greeting.capabilities();
        if url.has_tls {
            if !greeting.capabilities().contains(CapabilityFlags::CLIENT_SSL) {
                return Err(MysqlError::Other("the server does not offer TLS".to_owned()));
            }
            capabilities |= CapabilityFlags::CLIENT_SSL;
            this = this.with_tls(url, ca_file, capabilities).await?;
        }
        let is_sealed = url.has_tls || matches!(url.place, MysqlPlace::Socket(_));
        let offered = greeting.auth_plugin();
        let known = [AuthPlugin::CachingSha2Password, AuthPlugin::MysqlNativePassword];
        let plugin = offered.filter(|plugin| known.contains(plugin));
        let plugin = plugin.map_or(AuthPlugin::MysqlNativePassword, AuthPlugin::into_owned);
        let password = url.password.expose();
        let proof = plugin.gen_data(Some(password), &greeting.nonce());
        let answer = HandshakeResponse::new(
            proof.as_deref(),
            (8, 0, 0),
            Some(url.user.as_bytes()),
            Some(url.database.as_bytes()),
            Some(plugin.clone()),
            capabilities,
            None,
            u32::try_from(MAX_PACKET).unwrap_or(u32::MAX),
        );
        let mut bytes = Vec::new();
        answer.serialize(&mut bytes);
        this.send(&bytes).await?;
        this.prove(plugin, greeting.nonce(), password, is_sealed).await?;
        Ok(this)
    }

    /// Continues with TLS.
    async fn with_tls(
        mut self,
        url: &MysqlUrl,
        ca_file: Option<&Path>,
        capabilities: CapabilityFlags,
    ) -> Result<Self, MysqlError> {
        let MysqlPlace::Tcp(host, _) = &url.place else { return Ok(self) };
        let tls =
            tls_for(PROTOCOL, ca_file).map_err(|error| MysqlError::Other(error.to_string()))?;
        let name = ServerName::try_from(host.clone())
            .map_err(|_| MysqlError::Other("no certificate can have this host".to_owned()))?;
        let most = u32::try_from(MAX_PACKET).unwrap_or(u32::MAX);
        let mut bytes = Vec::new();
        SslRequest::new(capabilities, most, COLLATION).serialize(&mut bytes);
        self.send(&bytes).await?;
        // SECURITY: what came before TLS is not taken for what came through it.
        if !self.stream.buffer().is_empty() {
            return Err(malformed());
        }
        let stream = tls.connect(name, self.stream.into_inner()).await?;
        let stream: Box<dyn MysqlStream> = Box::new(stream);
        Ok(Self { stream: BufReader::new(stream), ..self })
    }

    /// Proves the password, as the server asks for it.
    async fn prove(
        &mut self,
        mut plugin: AuthPlugin<'static>,
        mut nonce: Vec<u8>,
        password: &str,
        is_sealed: bool,
    ) -> Result<(), MysqlError> {
        for _ in 0..MAX_LOGIN_STEPS {
            self.receive().await?;
            self.check()?;
            match (self.packet.first().copied(), self.packet.get(1).copied()) {
                (Some(OK), _) => return Ok(()),
                (Some(END), Some(_)) => {
                    let packet = std::mem::take(&mut self.packet);
                    let asked: AuthSwitchRequest<'_> =
                        ParseBuf(&packet).parse(()).map_err(|_| malformed())?;
                    (plugin, nonce) =
                        (asked.auth_plugin().into_owned(), asked.plugin_data().to_vec());
                    let proof = match plugin {
                        AuthPlugin::CachingSha2Password | AuthPlugin::MysqlNativePassword => {
                            plugin.gen_data(Some(password), &nonce)
                        }
                        _ => return Err(unknown_plugin(&plugin)),
                    };
                    self.send(proof.as_deref().unwrap_or_default()).await?;
                }
                (Some(MORE), Some(FAST_LOGIN)) => {}
                (Some(MORE), Some(FULL_LOGIN)) if plugin == AuthPlugin::CachingSha2Password => {
                    let mut text = password.as_bytes().to_vec();
                    text.push(0);
                    if !is_sealed {
                        text = self.encrypted(text, &nonce).await?;
                    }
                    self.send(&text).await?;
                }
                _ => return Err(malformed()),
            }
        }
        Err(malformed())
    }

    /// A password for the key that the server tells.
    async fn encrypted(&mut self, text: Vec<u8>, nonce: &[u8]) -> Result<Vec<u8>, MysqlError> {
        self.send(&[ASK_FOR_KEY]).await?;
        self.receive().await?;
        self.check()?;
        let key = self.packet.get(1..).unwrap_or_default();
        let mask = nonce.iter().cycle();
        let masked: Vec<u8> = text.iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect();
        if nonce.is_empty() {
            return Err(malformed());
        }
        Ok(mysql_common::crypto::encrypt(&masked, key))
    }

    /// Runs a statement that has no rows, or whose rows say nothing.
    pub(super) async fn run(&mut self, sql: &str) -> Result<(), MysqlError> {
        self.query(sql, |_| Some(())).await
    }

    /// Runs a statement and calls this with the texts of each of its rows. `None` from it is a row
    /// that is not what was asked for.
    pub(super) async fn query(
        &mut self,
        sql: &str,
        row: impl FnMut(&[Option<&[u8]>]) -> Option<()>,
    ) -> Result<(), MysqlError> {
        match wait_while_running(ANSWER_TIMEOUT, self.answer(sql, row)).await {
            Some(done) => done,
            None => Err(MysqlError::Other("it does not answer".to_owned())),
        }
    }

    async fn answer(
        &mut self,
        sql: &str,
        mut row: impl FnMut(&[Option<&[u8]>]) -> Option<()>,
    ) -> Result<(), MysqlError> {
        self.sequence = 0;
        let mut bytes = Vec::with_capacity(sql.len() + 1);
        bytes.push(COM_QUERY);
        bytes.extend_from_slice(sql.as_bytes());
        self.send(&bytes).await?;
        self.receive().await?;
        self.check()?;
        if self.packet.first() == Some(&OK) {
            return Ok(());
        }
        let columns = number(&mut &*self.packet).ok_or_else(malformed)?;
        // Each column is described, and then comes what ends that.
        for _ in 0..=columns {
            self.receive().await?;
            self.check()?;
        }
        loop {
            self.receive().await?;
            self.check()?;
            if self.packet.first() == Some(&END) && self.packet.len() < 9 {
                return Ok(());
            }
            let texts = texts(&self.packet, columns).ok_or_else(malformed)?;
            row(&texts).ok_or_else(malformed)?;
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), MysqlError> {
        let length = u32::try_from(bytes.len()).map_err(|_| malformed())?;
        let mut packet = Vec::with_capacity(bytes.len() + 4);
        packet.extend_from_slice(&length.to_le_bytes()[..3]);
        packet.push(self.sequence);
        packet.extend_from_slice(bytes);
        self.sequence = self.sequence.wrapping_add(1);
        self.stream.write_all(&packet).await?;
        Ok(self.stream.flush().await?)
    }

    async fn receive(&mut self) -> Result<(), MysqlError> {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head).await?;
        let length = u32::from_le_bytes([head[0], head[1], head[2], 0]);
        let length = usize::try_from(length).map_err(|_| malformed())?;
        if length > MAX_PACKET || head[3] != self.sequence {
            return Err(malformed());
        }
        self.sequence = self.sequence.wrapping_add(1);
        self.packet.resize(length, 0);
        self.stream.read_exact(&mut self.packet).await?;
        Ok(())
    }

    /// Whether the packet is one that says what has gone wrong.
    fn check(&self) -> Result<(), MysqlError> {
        match &*self.packet {
            [ERROR, low, high, rest @ ..] => {
                let (state, message) = match rest {
                    [b'#', rest @ ..] if rest.len() >= 5 => rest.split_at(5),
                    rest => (&b"HY000"[..], rest),
                };
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                Err(MysqlError::Server {
                    code: u16::from_le_bytes([*low, *high]),
                    state: text(state),
                    message: text(message),
                })
            }
            [] => Err(malformed()),
            _ => Ok(()),
        }
    }
}

fn unknown_plugin(plugin: &AuthPlugin<'_>) -> MysqlError {
    let name = String::from_utf8_lossy(plugin.as_bytes()).into_owned();
    MysqlError::Other(format!(
        "the user logs in by `{name}`, which sidecache cannot do: let it have a password of \
         mysql_native_password or caching_sha2_password"
    ))
}

/// The texts of a row of so many columns.
fn texts(mut packet: &[u8], columns: u64) -> Option<Vec<Option<&[u8]>>> {
    let mut texts = Vec::new();
    for _ in 0..columns {
        if packet.first() == Some(&NULL) {
            packet = &packet[1..];
            texts.push(None);
            continue;
        }
        let length = usize::try_from(number(&mut packet)?).ok()?;
        let (text, rest) = packet.split_at_checked(length)?;
        packet = rest;
        texts.push(Some(text));
    }
    packet.is_empty().then_some(texts)
}

/// A number of one to nine bytes.
fn number(packet: &mut &[u8]) -> Option<u64> {
    let (first, rest) = packet.split_first()?;
    let length = match first {
        0..=250 => 0,
        252 => 2,
        253 => 3,
        254 => 8,
        _ => return None,
    };
    let (bytes, rest) = rest.split_at_checked(length)?;
    *packet = rest;
    if length == 0 {
        return Some(u64::from(*first));
    }
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_to_its_end_and_not_beyond() {
        let row = [&b"\x02ab\xfb\x00"[..], &[252, 3, 0], b"xyz"].concat();
        let expected = [Some(&b"ab"[..]), None, Some(b""), Some(b"xyz")];
        assert_eq!(texts(&row, 4).as_deref(), Some(&expected[..]));
        for (packet, columns) in [
            (&row[..], 3),
            (&row[..row.len() - 1], 4),
            (&[254, 255, 255, 255, 255, 255, 255, 255, 255], 1),
            (b"\xff", 1),
            (b"", 1),
        ] {
            assert_eq!(texts(packet, columns), None, "{packet:?}");
        }
    }
}
