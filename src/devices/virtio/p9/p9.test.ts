/** The 9P server: what the protocol says, and clients that do not keep to it. Numbers are those of diod's text and Linux' headers. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { TestDriver } from '../testing.ts'
import { textOf } from './message.ts'
import { VirtioP9 } from './p9.ts'
import { type Field, MemoryFolder, request, TestClient } from './testing.ts'

const [EPERM, ENOENT, EBADF, EEXIST, ENOTDIR, EISDIR, EINVAL, EROFS] = [1, 2, 9, 17, 20, 21, 22, 30]
const [ENAMETOOLONG, ENOTEMPTY, ELOOP, EPROTO, EOPNOTSUPP, ESTALE, EBUSY] = [36, 39, 40, 71, 95, 116, 16]
/** Message types. */
const T = {
  statfs: 8, lopen: 12, lcreate: 14, symlink: 16, mknod: 18, rename: 20, readlink: 22, getattr: 24, setattr: 26, xattrwalk: 30, readdir: 40,
  fsync: 50, mkdir: 72, renameat: 74, unlinkat: 76, version: 100, auth: 102, attach: 104, flush: 108, walk: 110, read: 116, write: 118,
  clunk: 120, remove: 122,
}
const root = 1
const fid = (number: number): Field => ['u32', number]
const walk = (from: number, to: number, ...names: string[]): Field[] =>
  [fid(from), fid(to), ['u16', names.length], ...names.map((name): Field => ['text', name])]
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)

/** A client that has attached the root as fid 1: folder `d` with file `f` (`hello`), link `out` to ../../etc. */
function client(folder = tree()): TestClient {
  const made = new TestClient(folder)
  assert.equal(made.ask(T.version, ['u32', 8192], ['text', '9P2000.L']).u32(), 8192)
  attach(made)
  return made
}

const attach = (each: TestClient): void => {
  each.ask(T.attach, fid(root), ['u32', 0xffffffff], ['text', 'root'], ['text', ''], ['u32', 0])
}

function tree(readOnly = false): MemoryFolder {
  const folder = new MemoryFolder(readOnly)
  folder.makeFolder(['d'], 0o755)
  const file = folder.open(['d', 'f'], { write: true, create: 0o644 })
  file.write(0, bytes('hello'))
  file.close()
  folder.makeLink(['out'], '../../etc')
  return folder
}

describe('what the protocol says', () => {
  test('another version is unknown, and the size is what both can do', () => {
    const each = new TestClient(tree())
    const answer = each.ask(T.version, ['u32', 0xffffffff], ['text', '9P2000.u'])
    assert.equal(answer.u32(), 512 << 10)
    assert.equal(answer.text(), 'unknown')
  })

  test('a version drops all fids', () => {
    const each = client()
    each.ask(T.version, ['u32', 8192], ['text', '9P2000.L'])
    assert.equal(each.fail(T.clunk, fid(root)), EBADF)
  })

  test('walk, open, read, write, clunk', () => {
    const folder = tree()
    const each = client(folder)
    const walked = each.ask(T.walk, ...walk(root, 2, 'd', 'f'))
    assert.equal(walked.u16(), 2)
    assert.equal(walked.bytes(13)[0], 0x80)
    assert.equal(walked.bytes(13)[0], 0)
    each.ask(T.lopen, fid(2), ['u32', 2])
    const read = each.ask(T.read, fid(2), ['u64', 1], ['u32', 100])
    assert.equal(textOf(read.bytes(read.u32())), 'ello')
    assert.equal(each.ask(T.write, fid(2), ['u64', 5], ['u32', 3], ['bytes', bytes('!!!')]).u32(), 3)
    const all = each.ask(T.read, fid(2), ['u64', 0], ['u32', 100])
    assert.equal(textOf(all.bytes(all.u32())), 'hello!!!')
    assert.equal(folder.openFiles, 1)
    each.ask(T.clunk, fid(2))
    assert.equal(folder.openFiles, 0)
    assert.equal(each.fail(T.clunk, fid(2)), EBADF)
  })

  test('a walk that ends early says how far it came, and makes no fid', () => {
    const each = client()
    assert.equal(each.ask(T.walk, ...walk(root, 2, 'd', 'no', 'x')).u16(), 1)
    assert.equal(each.fail(T.clunk, fid(2)), EBADF)
    assert.equal(each.fail(T.walk, ...walk(root, 2, 'no')), ENOENT)
  })

  test('entries of a folder, in pieces that end with whole entries', () => {
    const folder = new MemoryFolder()
    for (let i = 0; i < 1000; i++) folder.makeFolder([`entry ${i}`], 0o755)
    const each = client(folder)
    each.ask(T.walk, ...walk(root, 2))
    each.ask(T.lopen, fid(2), ['u32', 0])
    const names: string[] = []
    for (let offset = 0n; ;) {
      const answer = each.ask(T.readdir, fid(2), ['u64', offset], ['u32', 1000])
      const length = answer.u32()
      if (length === 0) break
      assert.ok(length <= 1000)
      for (let at = 0; at < length;) {
        answer.bytes(13)
        offset = answer.u64()
        assert.equal(answer.u8(), 4)
        names.push(answer.text())
        at += 24 + names.at(-1)!.length
      }
    }
    assert.deepEqual(names.sort(), ['.', '..', ...Array.from({ length: 1000 }, (_, i) => `entry ${i}`)].sort())
  })

  test('a file that is renamed keeps its fids, also those below', () => {
    const each = client()
    each.ask(T.walk, ...walk(root, 2, 'd', 'f'))
    each.ask(T.renameat, fid(root), ['text', 'd'], fid(root), ['text', 'e'])
    each.ask(T.lopen, fid(2), ['u32', 0])
    assert.equal(each.fail(T.walk, ...walk(root, 3, 'd')), ENOENT)
    assert.equal(each.ask(T.walk, ...walk(root, 3, 'e', 'f')).u16(), 2)
  })

  test('getattr: kind, size, and what it holds', () => {
    const each = client()
    each.ask(T.walk, ...walk(root, 2, 'd', 'f'))
    const answer = each.ask(T.getattr, fid(2), ['u64', 0x7ff])
    assert.equal(answer.u64() & 0x7ffn, 0x7ffn)
    answer.bytes(13)
    assert.equal(answer.u32(), 0o100644)
    answer.bytes(8 + 16)
    assert.equal(answer.u64(), 5n)
  })

  test('after a restore, files are open again; one whose name is gone is stale', () => {
    const folder = tree()
    const each = client(folder)
    each.ask(T.walk, ...walk(root, 2, 'd', 'f'))
    each.ask(T.lopen, fid(2), ['u32', 0])
    const saved = each.server.saveState()
    assert.deepEqual(JSON.parse(JSON.stringify(saved)), saved)
    const other = new TestClient(folder)
    other.server.restoreState(saved)
    const read = other.ask(T.read, fid(2), ['u64', 0], ['u32', 9])
    assert.equal(textOf(read.bytes(read.u32())), 'hello')
    other.server.restoreState(saved)
    folder.removeFile(['d', 'f'])
    assert.equal(other.fail(T.read, fid(2), ['u64', 0], ['u32', 9]), ESTALE)
  })
})

describe('what is refused', () => {
  test('names that lead elsewhere', () => {
    const each = client()
    for (const name of ['', '.', '..', 'a/b', '/etc', 'a\0b']) {
      assert.equal(each.fail(T.mkdir, fid(root), ['text', name], ['u32', 0o777], ['u32', 0]), EINVAL, JSON.stringify(name))
      assert.equal(each.fail(T.unlinkat, fid(root), ['text', name], ['u32', 0]), EINVAL)
      assert.equal(each.fail(T.renameat, fid(root), ['text', 'd'], fid(root), ['text', name]), EINVAL)
    }
    for (const name of ['', 'a/b', '../x', 'a\0b']) assert.equal(each.fail(T.walk, ...walk(root, 2, name)), EINVAL)
    assert.equal(each.fail(T.mkdir, fid(root), ['text', 'n'.repeat(256)], ['u32', 0o777], ['u32', 0]), ENAMETOOLONG)
  })

  test('.. of the root is the root, and a link is no way', () => {
    const each = client()
    each.ask(T.walk, ...walk(root, 2, '..', '..', 'd', '..', '..'))
    assert.deepEqual(each.ask(T.getattr, fid(2), ['u64', 0]).bytes(21), each.ask(T.getattr, fid(root), ['u64', 0]).bytes(21))
    assert.equal(each.ask(T.walk, ...walk(root, 3, 'out', 'passwd')).u16(), 1)
    each.ask(T.walk, ...walk(root, 3, 'out'))
    assert.equal(each.fail(T.walk, ...walk(3, 4, 'passwd')), ENOTDIR)
    assert.equal(each.fail(T.lopen, fid(3), ['u32', 0]), ELOOP)
  })

  test('all that changes a folder that is only read', () => {
    const each = client(tree(true))
    const name: Field = ['text', 'x']
    each.ask(T.walk, ...walk(root, 2, 'd', 'f'))
    assert.equal(each.fail(T.lopen, fid(2), ['u32', 1]), EROFS)
    assert.equal(each.fail(T.lopen, fid(2), ['u32', 0o1000]), EROFS)
    assert.equal(each.fail(T.lcreate, fid(root), name, ['u32', 0o102], ['u32', 0o644], ['u32', 0]), EROFS)
    assert.equal(each.fail(T.mkdir, fid(root), name, ['u32', 0o777], ['u32', 0]), EROFS)
    assert.equal(each.fail(T.mknod, fid(root), name, ['u32', 0o100644], ['u32', 0], ['u32', 0], ['u32', 0]), EROFS)
    assert.equal(each.fail(T.symlink, fid(root), name, ['text', 'd'], ['u32', 0]), EROFS)
    assert.equal(each.fail(T.unlinkat, fid(root), ['text', 'd'], ['u32', 0x200]), EROFS)
    assert.equal(each.fail(T.renameat, fid(root), ['text', 'd'], fid(root), name), EROFS)
    const times: Field[] = [['u64', 0], ['u64', 0], ['u64', 0], ['u64', 0]]
    assert.equal(each.fail(T.setattr, fid(2), ['u32', 8], ['u32', 0], ['u32', 0], ['u32', 0], ['u64', 0], ...times), EROFS)
    assert.equal(each.fail(T.remove, fid(2)), EROFS)
  })

  test('fids that are not there, twice there, open, or not open', () => {
    const each = client()
    assert.equal(each.fail(T.walk, ...walk(9, 2)), EBADF)
    assert.equal(each.fail(T.attach, fid(root), ['u32', 0xffffffff], ['text', ''], ['text', ''], ['u32', 0]), EBADF)
    each.ask(T.walk, ...walk(root, 2, 'd', 'f'))
    assert.equal(each.fail(T.walk, ...walk(root, 2, 'd')), EBADF)
    assert.equal(each.fail(T.read, fid(2), ['u64', 0], ['u32', 1]), EBADF)
    each.ask(T.lopen, fid(2), ['u32', 0])
    assert.equal(each.fail(T.lopen, fid(2), ['u32', 0]), EBADF)
    assert.equal(each.fail(T.write, fid(2), ['u64', 0], ['u32', 1], ['u8', 0]), EBADF)
    assert.equal(each.fail(T.readdir, fid(2), ['u64', 0], ['u32', 100]), EBADF)
    assert.equal(each.fail(T.walk, ...walk(root, 3, ...Array.from({ length: 17 }, () => '..'))), EINVAL)
  })

  test('what the folder refuses', () => {
    const each = client()
    const make = (name: string): number => each.fail(T.mkdir, fid(root), ['text', name], ['u32', 0o777], ['u32', 0])
    assert.equal(make('d'), EEXIST)
    assert.equal(each.fail(T.unlinkat, fid(root), ['text', 'd'], ['u32', 0x200]), ENOTEMPTY)
    assert.equal(each.fail(T.unlinkat, fid(root), ['text', 'd'], ['u32', 0]), EISDIR)
    assert.equal(each.fail(T.mknod, fid(root), ['text', 'tty'], ['u32', 0o020666], ['u32', 4], ['u32', 0], ['u32', 0]), EPERM)
    assert.equal(each.fail(T.lopen, fid(root), ['u32', 1]), EISDIR)
    each.ask(T.walk, ...walk(root, 2))
    assert.equal(each.fail(T.remove, fid(2)), EBUSY)
    assert.equal(each.fail(T.clunk, fid(2)), EBADF)
    assert.equal(each.fail(T.xattrwalk, fid(root), fid(5), ['text', 'user.x']), EOPNOTSUPP)
    assert.equal(each.fail(200), EOPNOTSUPP)
  })

  test('permissions keep no right of somebody else', () => {
    const folder = tree()
    client(folder).ask(T.lcreate, fid(root), ['text', 'x'], ['u32', 0o102], ['u32', 0o6755], ['u32', 0])
    assert.equal(folder.status(['x']).mode, 0o100755)
  })
})

describe('messages that are none', () => {
  test('too short at each place, or with a size that lies', () => {
    const each = client()
    const whole = request(T.renameat, fid(root), ['text', 'd'], fid(root), ['text', 'e'])
    for (let length = 7; length < whole.length; length++) {
      const cut = whole.slice(0, length)
      new DataView(cut.buffer).setUint32(0, length, true)
      assert.deepEqual([each.raw(cut)[0], each.raw(cut)[1].u32()], [7, EPROTO])
    }
    for (const size of [0, 6, whole.length + 1, 0xffffffff]) {
      const lie = whole.slice()
      new DataView(lie.buffer).setUint32(0, size, true)
      assert.equal(each.raw(lie)[1].u32(), EPROTO)
    }
    assert.equal(each.server.answer(whole.subarray(0, 6), 100), undefined)
    assert.equal(each.server.answer(whole, 10), undefined)
  })

  test('counts and places beyond all bounds', () => {
    const folder = tree()
    const each = client(folder)
    each.ask(T.walk, ...walk(root, 2, 'd', 'f'))
    each.ask(T.lopen, fid(2), ['u32', 2])
    assert.equal(each.ask(T.read, fid(2), ['u64', 0], ['u32', 0xffffffff]).u32(), 5)
    assert.equal(each.ask(T.read, fid(2), ['u64', 2n ** 53n - 1n], ['u32', 10]).u32(), 0)
    assert.equal(each.fail(T.read, fid(2), ['u64', 2n ** 64n - 1n], ['u32', 10]), EINVAL)
    assert.equal(each.fail(T.write, fid(2), ['u64', 0], ['u32', 0xffffffff], ['u8', 0]), EPROTO)
    const [type, body] = each.raw(request(T.read, fid(2), ['u64', 0], ['u32', 100]), 13)
    assert.deepEqual([type, body.u32(), textOf(body.bytes(2))], [117, 2, 'he'])
  })

  test('noise never throws', () => {
    let state = 1
    const next = (): number => (state = Math.imul(state, 1_103_515_245) + 12_345) >>> 16 & 0xff
    const each = client()
    for (let round = 0; round < 20_000; round++) {
      const noise = Uint8Array.from({ length: 7 + (next() & 63) }, (_, at) => (at < 11 || next() < 128 ? next() & 3 : next()))
      new DataView(noise.buffer).setUint32(0, noise.length, true)
      const types = Object.values(T)
      noise[4] = types[next() % types.length]
      each.server.answer(noise, 11 + next() * 8)
    }
  })
})

describe('the virtio device', () => {
  test('a tag in its configuration, and answers in the used ring', () => {
    const driver = new TestDriver(new VirtioP9({ folder: tree(), tag: 'ours', log: (_device, what) => driver.logged.push(what) }))
    assert.equal(driver.offered() & 1n, 1n)
    assert.deepEqual([0, 2, 3, 4, 5].map(at => driver.read('device', at, 1)), [4, ...bytes('ours')])
    driver.start(1n)
    driver.dma.memory.set(request(T.version, ['u32', 8192], ['text', '9P2000.L']), 0x4000)
    driver.submit([
      { address: 0x4000, length: 21 }, { address: 0x5000, length: 7, write: true }, { address: 0x6000, length: 100, write: true },
    ])
    assert.deepEqual(driver.usedElement(0), [0, 21])
    assert.equal(driver.dma.memory[0x5004], 101)
    assert.equal(textOf(driver.dma.memory.subarray(0x6006, 0x600e)), '9P2000.L')
    driver.submit([{ address: 0x4000, length: 3 }, { address: 0x5000, length: 100, write: true }])
    assert.deepEqual(driver.usedElement(1), [0, 0])
    assert.equal(driver.logged.length, 1)
  })
})
