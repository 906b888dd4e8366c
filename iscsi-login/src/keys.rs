//! Every text key, one row each: RFC 7143 sections 12 and 13, RFC 7144 section 7, RFC 7145 section 6.
//!
//! The order of the rows is the order in which a batch of proposals is settled: a key stands below the keys that its
//! answer depends on, so the order in which a peer lists its keys never matters.
//
// req: 7143-6.2-10, 7143-6.2-16, 7143-11.12.10-2, 7143-11.13.8-2, 7145-3.3-8

/// When a key may be used (RFC 7143 section 13, "Use").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Usage {
    /// IO, initialize only: in any login.
    Io,
    /// LO, leading only: in the login of a session's first connection.
    Lo,
    /// ALL: in login and in full feature phase.
    All,
    /// FFPO: in full feature phase only.
    Ffpo,
}

/// In which login stage a key may be used (RFC 7143 sections 12 and 13).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StageUse {
    /// SecurityNegotiation only.
    Security,
    /// LoginOperationalNegotiation only.
    Operational,
    /// "Any-Stage".
    Any,
    /// No login stage at all.
    Never,
}

/// What a key's value applies to (RFC 7143 section 13, "Scope").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// CO: this connection.
    Connection,
    /// SW: the whole session.
    Session,
}

/// Who may propose or declare a key (RFC 7143 section 13, "Senders").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Senders {
    /// The initiator.
    Initiator,
    /// The target.
    Target,
    /// Either.
    Both,
}

/// The form of a value (RFC 7143 section 6.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ValueType {
    /// `Yes` or `No`.
    Boolean,
    /// A numerical-value in `min..=max`.
    Number {
        /// Smallest admissible value, not counting `or_zero`.
        min: u32,
        /// Largest admissible value.
        max: u32,
        /// Whether 0 is admissible besides `min..=max`.
        or_zero: bool,
    },
    /// A list-of-values; these are known.
    List(&'static [&'static str]),
    /// One of these words, declared.
    Word(&'static [&'static str]),
    /// iSCSI-name-value.
    IscsiName,
    /// iSCSI-local-name-value.
    LocalName,
    /// `domainname[:port][,portal-group-tag]`.
    TargetAddress,
    /// 16-bit binary-value.
    Binary16,
    /// Free text-value of at most 255 bytes.
    Text,
    /// Value of an authentication method, with rules of its own.
    Auth,
}

/// The value in force when a key was not used (RFC 7143 section 13, "Default").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DefaultValue {
    /// There is none.
    Absent,
    /// A boolean.
    Boolean(bool),
    /// A number.
    Number(u32),
    /// A word of a list.
    Word(&'static str),
}

/// How the answer follows from the proposal (RFC 7143 section 13, "Result function").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResultFunction {
    /// The answer is not above the offer.
    Minimum,
    /// The answer is not below the offer.
    Maximum,
    /// Offer AND a value of the acceptor.
    And,
    /// Offer OR a value of the acceptor.
    Or,
    /// The first value of the offered list that the acceptor supports.
    First,
    /// Declarative: no answer.
    Declared,
    /// Obsolete: the answer is Reject (RFC 7143 section 13.25).
    Refused,
    /// Ruled by the authentication method.
    Method,
}

/// What makes a key irrelevant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Irrelevant {
    /// SessionType=Discovery.
    Discovery,
    /// InitialR2T=Yes and ImmediateData=No.
    NoUnsolicitedData,
    /// RDMAExtensions=Yes.
    WithRdma,
    /// RDMAExtensions=No.
    WithoutRdma,
}

/// Where a key is specified. The difference matters: NotUnderstood is a protocol error for keys of RFC 7143 and a
/// mere "no" for later ones (RFC 7143 section 6.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// RFC 4850, optional since then; RFC 7143 section 13.26 carries it on and asks senders to bear NotUnderstood.
    Rfc4850,
    /// RFC 7143.
    Rfc7143,
    /// RFC 7144.
    Rfc7144,
    /// RFC 7145.
    Rfc7145,
}

/// One row of the key table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyDef {
    /// The key-name as it travels.
    pub name: &'static str,
    /// Use.
    pub usage: Usage,
    /// Login stage.
    pub stage: StageUse,
    /// Scope.
    pub scope: Scope,
    /// Senders.
    pub senders: Senders,
    /// Value type and bounds.
    pub value: ValueType,
    /// Default.
    pub default: DefaultValue,
    /// Result function.
    pub result: ResultFunction,
    /// Conditions that make it irrelevant, any of them.
    pub irrelevant: &'static [Irrelevant],
    /// Specification.
    pub origin: Origin,
}

macro_rules! keys {
    ($( $(#[$doc:meta])* $id:ident = $name:literal : $usage:ident, $stage:ident, $scope:ident, $senders:ident,
        $value:expr, $default:expr, $result:ident, [$($irr:ident),*], $origin:ident; )*) => {
        /// A key of the table. Keys that are not here are answered NotUnderstood.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        #[non_exhaustive]
        pub enum Key { $( $(#[$doc])* #[doc = concat!("`", $name, "`.")] $id, )* }

        impl Key {
            /// Every key, in table order.
            pub const ALL: &'static [Self] = &[$(Self::$id),*];

            /// The key of this name; letter case counts (RFC 7143 section 6.1).
            // req: 7143-6.1-6
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$id),)* _ => None }
            }

            /// The row of this key.
            #[must_use]
            pub const fn def(self) -> &'static KeyDef {
                match self { $( Self::$id => {
                    const ROW: KeyDef = KeyDef {
                        name: $name, usage: Usage::$usage, stage: StageUse::$stage, scope: Scope::$scope,
                        senders: Senders::$senders, value: $value, default: $default,
                        result: ResultFunction::$result, irrelevant: &[$(Irrelevant::$irr),*],
                        origin: Origin::$origin,
                    };
                    &ROW
                } )* }
            }
        }
    };
}

use DefaultValue::{Absent, Boolean as Bool, Number as Num, Word as Is};
use ValueType as V;

const fn number(min: u32, max: u32) -> ValueType {
    V::Number { min, max, or_zero: false }
}
const fn number_or_zero(min: u32, max: u32) -> ValueType {
    V::Number { min, max, or_zero: true }
}

/// Largest value of every `*Length` key: 2^24 - 1.
pub(crate) const MAX_LENGTH: u32 = (1 << 24) - 1;
/// Smallest value of every `*Length` key.
pub(crate) const MIN_LENGTH: u32 = 512;

keys! {
    // Names and declarations of any stage.
    /// RFC 7143 section 13.21.
    // req: 7143-13.21-3
    SessionType = "SessionType": Lo, Any, Session, Initiator,
        V::Word(&["Discovery", "Normal"]), Is("Normal"), Declared, [], Rfc7143;
    /// RFC 7143 section 13.5.
    InitiatorName = "InitiatorName": Io, Any, Session, Initiator, V::IscsiName, Absent, Declared, [], Rfc7143;
    /// RFC 7143 section 13.7.
    InitiatorAlias = "InitiatorAlias": All, Any, Session, Initiator, V::LocalName, Absent, Declared, [], Rfc7143;
    /// RFC 7143 section 13.4. The target sends it in answers to SendTargets alone: see [`crate::sendtargets`].
    // req: 7143-13.4-3
    TargetName = "TargetName": Io, Any, Session, Initiator, V::IscsiName, Absent, Declared, [], Rfc7143;
    /// RFC 7143 section 13.6.
    TargetAlias = "TargetAlias": All, Any, Session, Target, V::LocalName, Absent, Declared, [], Rfc7143;
    /// RFC 7143 section 13.8.
    TargetAddress = "TargetAddress": All, Any, Session, Target, V::TargetAddress, Absent, Declared, [], Rfc7143;
    /// RFC 7143 section 13.9.
    // req: 7143-13.9-1
    TargetPortalGroupTag = "TargetPortalGroupTag": Io, Any, Session, Target, V::Binary16, Absent, Declared, [],
        Rfc7143;

    // Security (RFC 7143 section 12). Values and order are the affair of `auth`.
    /// RFC 7143 section 12.1.
    // req: 7143-12-1, 7143-12.1-10
    AuthMethod = "AuthMethod": Io, Security, Connection, Both, V::Auth, Absent, Method, [], Rfc7143;
    /// RFC 7143 section 12.1.3.
    ChapA = "CHAP_A": Io, Security, Connection, Both, V::Auth, Absent, Method, [], Rfc7143;
    /// RFC 7143 section 12.1.3.
    ChapI = "CHAP_I": Io, Security, Connection, Both, V::Auth, Absent, Method, [], Rfc7143;
    /// RFC 7143 section 12.1.3.
    ChapC = "CHAP_C": Io, Security, Connection, Both, V::Auth, Absent, Method, [], Rfc7143;
    /// RFC 7143 section 12.1.3.
    ChapN = "CHAP_N": Io, Security, Connection, Both, V::Auth, Absent, Method, [], Rfc7143;
    /// RFC 7143 section 12.1.3.
    ChapR = "CHAP_R": Io, Security, Connection, Both, V::Auth, Absent, Method, [], Rfc7143;

    // Operational; RDMAExtensions first, since others depend on it.
    /// RFC 7145 section 6.3.
    // req: 7145-6.3-7
    RdmaExtensions = "RDMAExtensions": Lo, Operational, Session, Both, V::Boolean, Bool(false), And, [Discovery],
        Rfc7145;
    /// RFC 7143 section 13.10.
    // req: 7143-13.10-1
    InitialR2t = "InitialR2T": Lo, Operational, Session, Both, V::Boolean, Bool(true), Or, [Discovery], Rfc7143;
    /// RFC 7143 section 13.11.
    // req: 7143-13.11-6
    ImmediateData = "ImmediateData": Lo, Operational, Session, Both, V::Boolean, Bool(true), And, [Discovery],
        Rfc7143;
    /// RFC 7143 section 13.13.
    // req: 7143-13.13-1
    MaxBurstLength = "MaxBurstLength": Lo, Operational, Session, Both, number(MIN_LENGTH, MAX_LENGTH), Num(262_144),
        Minimum, [Discovery], Rfc7143;
    /// RFC 7143 section 13.14.
    // req: 7143-13.14-2
    FirstBurstLength = "FirstBurstLength": Lo, Operational, Session, Both, number(MIN_LENGTH, MAX_LENGTH),
        Num(65_536), Minimum, [Discovery, NoUnsolicitedData], Rfc7143;
    /// RFC 7143 section 13.18.
    // req: 7143-13.18-1
    DataPduInOrder = "DataPDUInOrder": Lo, Operational, Session, Both, V::Boolean, Bool(true), Or, [Discovery],
        Rfc7143;
    /// RFC 7143 section 13.19.
    // req: 7143-13.19-3
    DataSequenceInOrder = "DataSequenceInOrder": Lo, Operational, Session, Both, V::Boolean, Bool(true), Or,
        [Discovery], Rfc7143;
    /// RFC 7143 section 13.20.
    // req: 7143-13.20-1
    ErrorRecoveryLevel = "ErrorRecoveryLevel": Lo, Operational, Session, Both, number(0, 2), Num(0), Minimum, [],
        Rfc7143;
    /// RFC 7143 section 13.17.
    // req: 7143-13.17-1
    MaxOutstandingR2t = "MaxOutstandingR2T": Lo, Operational, Session, Both, number(1, 65_535), Num(1), Minimum,
        [Discovery], Rfc7143;
    /// RFC 7143 section 13.15.
    // req: 7143-13.15-1
    DefaultTime2Wait = "DefaultTime2Wait": Lo, Operational, Session, Both, number(0, 3600), Num(2), Maximum, [],
        Rfc7143;
    /// RFC 7143 section 13.16.
    // req: 7143-13.16-1
    DefaultTime2Retain = "DefaultTime2Retain": Lo, Operational, Session, Both, number(0, 3600), Num(20), Minimum, [],
        Rfc7143;
    /// RFC 7143 section 13.2.
    // req: 7143-13.2-1
    MaxConnections = "MaxConnections": Lo, Operational, Session, Both, number(1, 65_535), Num(1), Minimum,
        [Discovery], Rfc7143;
    /// RFC 7143 section 13.23.
    // req: 7143-13.23-6
    TaskReporting = "TaskReporting": Lo, Operational, Session, Both,
        V::List(&["RFC3720", "ResponseFence", "FastAbort"]), Is("RFC3720"), First, [Discovery], Rfc7143;
    /// RFC 7144 section 7.1.1.
    // req: 7144-7.1.1-2
    IscsiProtocolLevel = "iSCSIProtocolLevel": Lo, Operational, Session, Both, number(0, 31), Num(1), Minimum,
        [Discovery], Rfc7144;
    /// RFC 7143 section 13.1; irrelevant with RDMAExtensions=Yes by RFC 7145 section 6.1.
    // req: 7143-13.1-9
    HeaderDigest = "HeaderDigest": Io, Operational, Connection, Both, V::List(&["CRC32C", "None"]), Is("None"), First,
        [WithRdma], Rfc7143;
    /// RFC 7143 section 13.1; irrelevant with RDMAExtensions=Yes by RFC 7145 section 6.1.
    // req: 7143-13.1-9
    DataDigest = "DataDigest": Io, Operational, Connection, Both, V::List(&["CRC32C", "None"]), Is("None"), First,
        [WithRdma], Rfc7143;
    /// RFC 7143 section 13.12. With RDMAExtensions=Yes it is declared in vain (RFC 7145 section 6.2).
    // req: 7143-13.12-2
    MaxRecvDataSegmentLength = "MaxRecvDataSegmentLength": All, Operational, Connection, Both,
        number(MIN_LENGTH, MAX_LENGTH), Num(8192), Declared, [], Rfc7143;
    /// RFC 7145 section 6.5.
    // req: 7145-6.5-1
    InitiatorRecvDataSegmentLength = "InitiatorRecvDataSegmentLength": Io, Operational, Connection, Both,
        number(MIN_LENGTH, MAX_LENGTH), Num(8192), Minimum, [WithoutRdma], Rfc7145;
    /// RFC 7145 section 6.4.
    // req: 7145-6.4-2
    TargetRecvDataSegmentLength = "TargetRecvDataSegmentLength": Io, Operational, Connection, Both,
        number(MIN_LENGTH, MAX_LENGTH), Num(8192), Minimum, [WithoutRdma], Rfc7145;
    /// RFC 7145 section 6.7.
    // req: 7145-6.7-2
    MaxOutstandingUnexpectedPdus = "MaxOutstandingUnexpectedPDUs": Lo, Operational, Session, Both,
        number_or_zero(2, u32::MAX), Num(0), Declared, [WithoutRdma], Rfc7145;
    /// RFC 7145 section 6.8.
    // req: 7145-6.8-2
    MaxAhsLength = "MaxAHSLength": Lo, Operational, Session, Both, number_or_zero(2, u32::MAX), Num(256), Declared,
        [WithoutRdma], Rfc7145;
    /// RFC 7145 section 6.9.
    // req: 7145-6.9-1
    TaggedBufferForSolicitedDataOnly = "TaggedBufferForSolicitedDataOnly": Lo, Operational, Session, Initiator,
        V::Boolean, Bool(false), Declared, [WithoutRdma], Rfc7145;
    /// RFC 7145 section 6.10.
    // req: 7145-6.10-3
    IserHelloRequired = "iSERHelloRequired": Lo, Operational, Session, Initiator, V::Boolean, Bool(false), Declared,
        [WithoutRdma], Rfc7145;
    /// RFC 7143 section 13.26. The one public key with an `X#` prefix.
    // req: 7143-6.2-18, 7143-14-1
    NodeArchitecture = "X#NodeArchitecture": Lo, Operational, Session, Both, V::Text, Absent, Declared, [], Rfc4850;

    // Full feature phase only.
    /// RFC 7143 section 13.3; see [`crate::sendtargets`].
    // req: 7143-13.3-1
    SendTargets = "SendTargets": Ffpo, Never, Session, Initiator, V::Text, Absent, Method, [], Rfc7143;

    // Obsolete (RFC 7143 section 13.25): known, so that they are refused and not NotUnderstood.
    /// RFC 3720 appendix A.
    IfMarker = "IFMarker": Io, Operational, Connection, Both, V::Boolean, Bool(false), Refused, [], Rfc7143;
    /// RFC 3720 appendix A.
    OfMarker = "OFMarker": Io, Operational, Connection, Both, V::Boolean, Bool(false), Refused, [], Rfc7143;
    /// RFC 3720 appendix A.
    IfMarkInt = "IFMarkInt": Io, Operational, Connection, Both, V::Text, Absent, Refused, [], Rfc7143;
    /// RFC 3720 appendix A.
    OfMarkInt = "OFMarkInt": Io, Operational, Connection, Both, V::Text, Absent, Refused, [], Rfc7143;
}

impl Key {
    /// The key-name as it travels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.def().name
    }

    /// Index in [`Key::ALL`].
    #[must_use]
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

/// One `T` for every key.
#[derive(Clone, Debug)]
pub(crate) struct PerKey<T>(Vec<T>);

impl<T: Clone> PerKey<T> {
    pub(crate) fn filled(value: T) -> Self {
        Self(vec![value; Key::ALL.len()])
    }
}

impl<T: Copy> PerKey<T> {
    pub(crate) fn of(&self, key: Key) -> Option<T> {
        self.0.get(key.index()).copied()
    }

    pub(crate) fn set(&mut self, key: Key, value: T) {
        if let Some(slot) = self.0.get_mut(key.index()) {
            *slot = value;
        }
    }
}

#[cfg(test)]
mod tests;
