//! A secret sealed for a member: NaCl's `crypto_box` (X25519, XSalsa20-Poly1305) to the member's
//! ed25519 key, as `crypto_box_easy` of libsodium makes it and `crypto_box_open_easy` opens it.

use curve25519_dalek::edwards::CompressedEdwardsY;
use curve25519_dalek::montgomery::MontgomeryPoint;
use poly1305::Poly1305;
use poly1305::universal_hash::KeyInit as _;
use salsa20::cipher::consts::U10;
use salsa20::cipher::{KeyIvInit as _, StreamCipher as _};
use salsa20::{XSalsa20, hsalsa};
use zeroize::Zeroizing;

use crate::ids::PubKey;

/// Bytes of the nonce of a box.
const NONCE_BYTES: usize = 24;
/// Bytes of the tag that a box begins with.
const TAG_BYTES: usize = 16;

/// Something sealed for one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    /// The x25519 key that it was sealed with, made for it alone.
    pub(crate) sender: [u8; 32],
    /// The nonce.
    pub(crate) nonce: [u8; NONCE_BYTES],
    /// The sender's key, then the box: a tag of 16 bytes, then what is as long as the secret.
    pub(crate) blob: Vec<u8>,
}

/// Seals a secret for whoever has a member's key, with 64 bytes that nobody can guess: a secret key
/// and, at the beginning of the second half, the nonce. None if nobody can open what is sealed for
/// that key: it is no point of the curve, or one of small order.
pub(crate) fn seal(
    secret: &[u8],
    recipient: &PubKey,
    (sender, entropy): (Zeroizing<[u8; 32]>, [u8; 32]),
) -> Option<Sealed> {
    let point = CompressedEdwardsY(recipient.0).decompress()?;
    let public = MontgomeryPoint::mul_base_clamped(*sender).to_bytes();
    let mut nonce = [0; NONCE_BYTES];
    nonce.copy_from_slice(entropy.get(..NONCE_BYTES)?);
    let sealed = crypto_box(secret, &nonce, point.to_montgomery(), &sender)?;
    let blob = [&public[..], &sealed].concat();
    Some(Sealed {
        sender: public,
        nonce,
        blob,
    })
}

/// Tag and ciphertext; None if the shared point is zero, as it is for keys of small order.
fn crypto_box(
    message: &[u8],
    nonce: &[u8; NONCE_BYTES],
    recipient: MontgomeryPoint,
    sender: &[u8; 32],
) -> Option<Vec<u8>> {
    let shared = Zeroizing::new(recipient.mul_clamped(*sender).to_bytes());
    if *shared == [0; 32] {
        return None;
    }
    let key = Zeroizing::new(hsalsa::<U10>(&(*shared).into(), &[0; 16].into()));
    let mut cipher = XSalsa20::new(&key, nonce.into());
    let mut mac_key = Zeroizing::new([0; 32]);
    cipher.apply_keystream(&mut *mac_key);
    let mut sealed = vec![0; TAG_BYTES + message.len()];
    let (tag, text) = sealed.split_at_mut(TAG_BYTES);
    text.copy_from_slice(message);
    cipher.apply_keystream(text);
    let mac = Poly1305::new((&*mac_key).into());
    tag.copy_from_slice(&mac.compute_unpadded(text));
    Some(sealed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::KeyPair;

    fn unhex<const N: usize>(text: &str) -> [u8; N] {
        hex::decode(text).unwrap().try_into().unwrap()
    }

    /// As libsodium's `crypto_box_easy` answers the same arguments.
    #[test]
    fn a_box_is_that_of_libsodium() {
        let sender = unhex("77076d0a7318a57d3c16c17251b26645df4c2f92ebc0992ac177fba51db92c2a");
        let recipient = unhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
        let nonce = unhex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37");
        let message: [u8; 131] = unhex(
            "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac7\
             28d45e6c61296cdc3c01233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556a\
             d6b1318a024a838f21af1fde048977eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f9377638\
             48645e0705",
        );
        let sealed = "7d792c182dc1b3b5b6252457ed50d1c5a83a4347c4a0b3303a3820ccf8a5b039b6e5f953a42\
             d01be987fa5320eb0fbf73a76812138c19ab2e9c15335bd344bd1e0d46aac2d4c733f990a5cae01adb89\
             4871886cb29c6140c692f5bcfd42a0c3f25c61e9c0fb8788718184cbdd2171d86d4ff91bd8483e72037e\
             280e239ad19137d714cff7334409f88f16021f14b094e2e17e2";
        let boxed = crypto_box(&message, &nonce, MontgomeryPoint(recipient), &sender).unwrap();
        assert_eq!(hex::encode(boxed), sealed);
    }

    #[test]
    fn nobody_can_open_what_is_sealed_for_no_key() {
        let entropy = || (Zeroizing::new([7; 32]), [9; 32]);
        let small = curve25519_dalek::constants::EIGHT_TORSION;
        for point in small {
            let key = PubKey(point.compress().to_bytes());
            assert_eq!(seal(b"secret", &key, entropy()), None);
        }
        // Not the y of any point.
        let mut none = [0; 32];
        none[0] = 2;
        assert_eq!(seal(b"secret", &PubKey(none), entropy()), None);
        let key = KeyPair::from_seed([1; 32]).public();
        let sealed = seal(b"secret", &key, entropy()).unwrap();
        assert_eq!((sealed.blob.len(), sealed.nonce), (32 + 16 + 6, [9; 24]));
        assert_eq!(sealed.blob[..32], sealed.sender);
    }
}
