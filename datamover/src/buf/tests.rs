use super::*;

fn list(parts: &[&'static str]) -> SgList {
    parts.iter().map(|p| Bytes::from_static(p.as_bytes())).collect()
}

fn list_mut(lens: &[usize]) -> SgListMut {
    lens.iter().map(|n| IoBuf::zeroed(*n)).collect()
}

/// Every range of a list of several parts, by every way to look at it.
#[test]
fn every_range() {
    let whole = b"abcdefghij";
    let sg = list(&["abc", "", "d", "efgh", "ij"]);
    assert_eq!((sg.len(), sg.parts().count()), (10, 4));
    for offset in 0..12usize {
        for len in 0..12usize {
            let want = &whole[offset.min(10)..10.min(offset + len).max(offset.min(10))];
            let pieces: Vec<Bytes> = sg.pieces(offset, len).collect();
            assert!(pieces.iter().all(|p| !p.is_empty()));
            assert_eq!(pieces.concat(), want);
            let slice = sg.slice(offset, len);
            assert_eq!((slice.len(), &slice.to_bytes()[..]), (want.len(), want));
            let mut to = vec![0; len];
            let n = sg.copy_to(offset, &mut to);
            assert_eq!(&to[..n], want);

            let mut m = list_mut(&[3, 1, 4, 2]);
            m.copy_from(0, whole);
            let slices: Vec<&[u8]> = m.slices(offset, len).collect();
            assert!(slices.iter().all(|s| !s.is_empty()));
            assert_eq!(slices.concat(), want);
            let mut iov: [IoSliceMut<'_>; 8] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
            let n = m.io_slices_mut(offset, len, &mut iov);
            let bytes: Vec<u8> = iov[..n].iter().flat_map(|s| s.to_vec()).collect();
            assert_eq!(bytes, want);
        }
        let mut iov = [IoSlice::new(&[]); 8];
        let n = sg.io_slices(offset, &mut iov);
        let bytes: Vec<u8> = iov[..n].iter().flat_map(|s| s.to_vec()).collect();
        assert_eq!(bytes, &whole[offset.min(10)..]);
    }
}

#[test]
fn slices_stop_where_there_is_no_room() {
    let mut m = list_mut(&[3, 1, 4]);
    let mut iov: [IoSliceMut<'_>; 2] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
    assert_eq!(m.io_slices_mut(1, 100, &mut iov), 2);
    assert_eq!((iov[0].len(), iov[1].len()), (2, 1));
}

#[test]
fn writing_across_parts() {
    let mut m = list_mut(&[2, 3]);
    assert_eq!(m.copy_from(1, b"xyz"), 3);
    assert_eq!(m.copy_from(4, b"ab"), 1, "the rest has no room");
    assert_eq!(m.copy_from(9, b"ab"), 0);
    assert_eq!(m.freeze().to_bytes(), &b"\0xyza"[..]);
}

#[test]
fn truncating_drops_what_is_behind() {
    for len in 0..8 {
        let mut m = list_mut(&[2, 3, 1]);
        m.copy_from(0, b"abcdef");
        m.truncate(len);
        assert_eq!(m.len(), len.min(6));
        assert_eq!(m.freeze().to_bytes(), &b"abcdef"[..len.min(6)]);
    }
}

#[test]
fn lists_are_equal_by_content() {
    assert_eq!(list(&["ab", "c"]), list(&["a", "bc"]));
    assert_ne!(list(&["ab"]), list(&["ac"]));
    assert_ne!(list(&["ab"]), list(&["abc"]));
    assert_eq!(list(&[]), SgList::new());
}

#[test]
fn one_part_is_shared_not_copied() {
    let part = Bytes::from(vec![1u8; 100]);
    let sg = SgList::from(part.clone());
    assert_eq!(sg.to_bytes().as_ptr(), part.as_ptr());
    assert_eq!(sg.slice(10, 5).to_bytes().as_ptr(), part[10..].as_ptr());
}

#[test]
fn the_part_in_use_of_a_buffer() {
    let mut buf = IoBuf::zeroed(8);
    buf.copy_from_slice(b"12345678");
    buf.truncate(3);
    assert_eq!((&buf[..], buf.capacity()), (&b"123"[..], 8));
    buf.truncate(5);
    assert_eq!(buf.len(), 3);
    buf.set_len(5);
    assert_eq!(&buf[..], b"12345");
    buf.set_len(100);
    assert_eq!(buf.len(), 8);
    buf.truncate(2);
    assert_eq!(buf.freeze(), &b"12"[..]);
}
