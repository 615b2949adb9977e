/** The 82540EM, driven as Intel's "PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual" says. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { crc32 } from 'node:zlib'
import { reg } from './registers.ts'
import { Driver, entries, mac, place } from './testing.ts'

const other = [0x52, 0x54, 0x00, 0xaa, 0xbb, 0xcc]
const words = (bytes: Iterable<number>): number[] => {
  const all = [...bytes]
  if (all.length & 1) all.push(0)
  return Array.from({ length: all.length / 2 }, (_, i) => all[2 * i] * 256 + all[2 * i + 1])
}
/** RFC 1071, by its text. */
const internetSum = (bytes: Iterable<number>, start = 0): number => {
  let sum = words(bytes).reduce((total, word) => total + word, start)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return sum
}
const numbers = (length: number): number[] => Array.from({ length }, (_, i) => (i * 7 + (i >> 8)) & 0xff)
const frameTo = (to: number[], length = 60, type = [0x88, 0xb5]): Uint8Array =>
  Uint8Array.from([...to, ...other, ...type, ...numbers(length - 14)])

interface Ip {
  protocol?: 6 | 17
  payload: number[]
  /** The checksum field of TCP or UDP: right, or this. */
  sum?: number
  headerSum?: number
}
const addresses = [10, 0, 2, 2, 10, 0, 2, 15]

/** An IPv4 packet in a frame to us; TCP with flags PSH, ACK and FIN. */
function ipFrame({ protocol = 6, payload, sum, headerSum }: Ip): Uint8Array {
  const tcp = [0x1f, 0x90, 0x04, 0xd2, 0, 0, 0, 100, 0, 0, 0, 9, 0x50, 0x19, 0xff, 0xff, 0, 0, 0, 0]
  const udp = [0x1f, 0x90, 0x04, 0xd2, 0, 8 + payload.length, 0, 0]
  const segment = [...(protocol === 6 ? tcp : udp), ...payload]
  const at = protocol === 6 ? 16 : 6
  const right = ~internetSum(segment, internetSum(addresses) + protocol + segment.length) & 0xffff
  segment.splice(at, 2, (sum ?? right) >> 8, (sum ?? right) & 0xff)
  const total = 20 + segment.length
  const header = [0x45, 0, total >> 8, total & 0xff, 0x12, 0x34, 0x40, 0, 64, protocol, 0, 0, ...addresses]
  const own = headerSum ?? ~internetSum(header) & 0xffff
  header.splice(10, 2, own >> 8, own & 0xff)
  return Uint8Array.from([...mac, ...other, 8, 0, ...header, ...segment])
}

test('identity, and the EEPROM: clocked by hand, and read by the card', () => {
  const driver = new Driver()
  assert.equal(driver.card.config.get(0, 4), 0x100e8086)
  assert.deepEqual(driver.card.bars.map(({ kind, size }) => [kind, size]), [['memory32', 0x20000], ['io', 64]])
  const clock = (bit: number): number => {
    const base = 0x42 | (bit << 2)
    driver.write(reg.eecd, base)
    driver.write(reg.eecd, base | 1)
    const out = (driver.read(reg.eecd) >> 3) & 1
    driver.write(reg.eecd, base)
    return out
  }
  const byHand = (address: number): number => {
    driver.write(reg.eecd, 0x40)
    assert.equal(driver.read(reg.eecd) & 0x80, 0x80)
    driver.write(reg.eecd, 0x42)
    for (const bit of [1, 1, 0]) clock(bit)
    for (let bit = 5; bit >= 0; bit--) clock((address >> bit) & 1)
    let value = 0
    for (let bit = 0; bit < 16; bit++) value = (value << 1) | clock(0)
    driver.write(reg.eecd, 0)
    return value
  }
  const byCard = (address: number): number => {
    driver.write(reg.eerd, (address << 8) | 1)
    const word = driver.read(reg.eerd)
    assert.equal(word & 0x10, 0x10)
    return word >>> 16
  }
  assert.deepEqual([0, 1, 2].map(byHand), [0x5452, 0x1200, 0x5634])
  const image = Array.from({ length: 64 }, (_, address) => byCard(address))
  assert.deepEqual(Array.from({ length: 64 }, (_, address) => byHand(address)), image)
  assert.equal(image.reduce((sum, word) => sum + word, 0) & 0xffff, 0xbaba)
  assert.deepEqual([driver.read(reg.ra), driver.read(reg.ra + 4)], [0x12005452, 0x80005634])
})

test('the transceiver: identity, link, a reset that negotiates anew', () => {
  const driver = new Driver()
  const mdio = (operation: number, register: number, data = 0, phy = 1): number => {
    driver.write(reg.mdic, (operation << 26) | (phy << 21) | (register << 16) | data)
    return driver.read(reg.mdic)
  }
  const read = (register: number): number => mdio(2, register) & 0xffff
  assert.deepEqual([read(2), read(3)], [0x0141, 0x0c20])
  assert.equal(read(1) & 0x24, 0x24)
  assert.equal(driver.read(reg.status) & 0xc3, 0x83)
  assert.equal((mdio(2, 2, 0, 3) >>> 28) & 5, 5)
  driver.write(reg.ims, 4)
  mdio(1, 0, 0x8000)
  assert.equal(read(1) & 0x24, 0)
  assert.equal(driver.read(reg.status) & 2, 0)
  assert.equal(driver.read(reg.icr), 4)
  driver.clock.advance(1e7)
  assert.deepEqual([read(1) & 0x24, driver.read(reg.status) & 2, driver.pin.asserted, driver.read(reg.icr)], [0x24, 2, true, 4])
  driver.card.link = false
  assert.deepEqual([driver.read(reg.status) & 2, driver.read(reg.icr), read(17)], [0, 4, 0])
  driver.card.link = true
  driver.clock.advance(1e7)
  assert.deepEqual([driver.read(reg.status) & 2, read(17) & 0xec00], [2, 0xac00])
})

test('legacy descriptors: padding, status, checksum insertion, more than one buffer', () => {
  const driver = new Driver()
  driver.start()
  const short = frameTo(other, 42)
  const at = driver.send(short)
  assert.deepEqual(driver.sent[0], Uint8Array.from([...short, ...new Array<number>(18).fill(0)]))
  assert.equal(driver.view.getUint8(at + 12), 1)
  assert.deepEqual([driver.read(reg.tdh), driver.read(reg.tdt)], [1, 1])
  assert.equal(driver.read(reg.icr) & 3, 3)
  // Insert the sum from byte 14 on at byte 20.
  const long = frameTo(other, 101)
  driver.send(long, 0x0d, (20n << 16n) | (14n << 40n))
  const expected = long.slice()
  const sum = ~internetSum(long.subarray(14)) & 0xffff
  expected.set([sum >> 8, sum & 0xff], 20)
  assert.deepEqual(driver.sent[1], expected)
  driver.dma.memory.set(long, place.data)
  driver.put(BigInt(place.data), 50n)
  driver.put(BigInt(place.data + 50), 51n | (1n << 24n))
  driver.ring()
  assert.deepEqual(driver.sent[2], long)
})

test('data descriptors with a context: the checksums of IP and TCP', () => {
  const driver = new Driver()
  driver.start()
  const right = ipFrame({ payload: numbers(101) })
  const seed = internetSum(addresses) + 6 + 121
  const partial = ipFrame({ payload: numbers(101), sum: (seed & 0xffff) + (seed >> 16), headerSum: 0 })
  driver.dma.memory.set(partial, place.data)
  // IPCSS 14, IPCSO 24, IPCSE 33; TUCSS 34, TUCSO 50, TUCSE 0.
  driver.put(14n | (24n << 8n) | (33n << 16n) | (34n << 32n) | (50n << 40n), 0x20000000n)
  driver.put(BigInt(place.data), BigInt(partial.length) | (1n << 20n) | (0x29n << 24n) | (3n << 40n))
  driver.ring()
  assert.deepEqual(driver.sent, [right])
})

test('TCP segmentation: lengths, identifications, sequence numbers, flags, checksums', () => {
  const payload = numbers(2500)
  for (const wantsChecksums of [true, false]) {
    const driver = new Driver({ wantsChecksums })
    driver.start()
    const seed = internetSum([...addresses, 0, 6])
    const whole = ipFrame({ payload, sum: seed, headerSum: 0 })
    driver.dma.memory.set(whole, place.data)
    driver.put(14n | (24n << 8n) | (33n << 16n) | (34n << 32n) | (50n << 40n), 2500n | (0x27n << 24n) | (54n << 40n) | (1000n << 48n))
    driver.put(BigInt(place.data), 54n | (1n << 20n) | (0x24n << 24n) | (3n << 40n))
    driver.put(BigInt(place.data + 54), 2500n | (1n << 20n) | (0x2dn << 24n) | (3n << 40n))
    driver.ring()
    if (!wantsChecksums) {
      assert.deepEqual(driver.sent.map(({ length }) => length), [2554])
      continue
    }
    assert.deepEqual(driver.sent.map(({ length }) => length), [1054, 1054, 554])
    driver.sent.forEach((frame, index) => {
      const view = new DataView(frame.buffer)
      assert.deepEqual([view.getUint16(16), view.getUint16(18)], [frame.length - 14, 0x1234 + index])
      assert.equal(view.getUint32(38), 100 + 1000 * index)
      assert.equal(frame[47], index === 2 ? 0x19 : 0x10)
      assert.equal(internetSum(frame.subarray(14, 34)), 0xffff)
      assert.equal(internetSum(frame.subarray(34), internetSum(addresses) + 6 + frame.length - 34), 0xffff)
      assert.deepEqual([...frame.subarray(54)], payload.slice(1000 * index, 1000 * index + 1000))
    })
    assert.equal(driver.read(0x40f8), 1)
  }
})

test('VLAN tags: put in, taken out, filtered', () => {
  const driver = new Driver()
  driver.start(0x04048000)
  driver.write(reg.ctrl, driver.read(reg.ctrl) | (1 << 30))
  const plain = frameTo(mac)
  const tagged = Uint8Array.from([...plain.subarray(0, 12), 0x81, 0x00, 0x60, 0x21, ...plain.subarray(12)])
  driver.send(plain, 0x49, 0x6021n << 48n)
  assert.deepEqual(driver.sent, [tagged])
  driver.arrive(tagged)
  assert.deepEqual(driver.received(), [])
  driver.write(reg.vfta + 4, 2) // 21h: word 1, bit 1
  driver.arrive(tagged)
  const [{ bytes, special, status }] = driver.received()
  assert.deepEqual([bytes, special, status & 8], [plain, 0x6021, 8])
})

test('frames that are for us, and those that are not', () => {
  const group = [0x01, 0x00, 0x5e, 0x12, 0x34, 0x56]
  const everybody = new Array<number>(6).fill(0xff)
  const takes = (control: number, to: number[], set: (driver: Driver) => void = () => {}): boolean => {
    const driver = new Driver()
    driver.start(0x04000000 | control)
    set(driver)
    driver.arrive(frameTo(to))
    return driver.received().length === 1
  }
  assert.deepEqual([takes(0, mac), takes(0, other), takes(8, other)], [true, false, true])
  assert.deepEqual([takes(0, everybody), takes(0x8000, everybody)], [false, true])
  assert.deepEqual([takes(0, group), takes(0x10, group)], [false, true])
  // Bits 47:36 of the address: 563h; word 2Bh, bit 3.
  assert.equal(takes(0, group, driver => driver.write(reg.mta + 0x2b * 4, 8)), true)
  assert.equal(takes(0x3000, group, driver => driver.write(reg.mta + ((0x634 >> 5) * 4), 1 << (0x634 & 31))), true)
  assert.equal(takes(0, other, driver => {
    driver.write(reg.ra + 8, 0xaa005452)
    driver.write(reg.ra + 12, 0x8000ccbb)
  }), true)
})

test('short frames are padded, the checksum of the frame follows unless it is stripped', () => {
  const driver = new Driver()
  driver.start(0x8000)
  const short = frameTo(mac, 40)
  driver.arrive(short)
  const padded = Uint8Array.from([...short, ...new Array<number>(20).fill(0)])
  const [{ bytes, status }] = driver.received()
  assert.deepEqual([bytes.subarray(0, 60), status & 3], [padded, 3])
  assert.equal(new DataView(bytes.buffer).getUint32(60, true), crc32(padded))
})

test('a frame larger than a buffer goes over several; one that is too long is counted', () => {
  const driver = new Driver()
  driver.start(0x04000020)
  const large = frameTo(mac, 5000)
  driver.arrive(large)
  const pieces = driver.received()
  assert.deepEqual(pieces.map(({ bytes, status }) => [bytes.length, status & 3]), [[2048, 1], [2048, 1], [904, 3]])
  assert.deepEqual(Uint8Array.from(pieces.flatMap(({ bytes }) => [...bytes])), large)
  driver.write(reg.rctl, 0x04000002)
  driver.arrive(large)
  assert.deepEqual([driver.received().length, driver.read(0x40ac), driver.read(0x40ac)], [0, 1, 0])
  driver.write(reg.rctl, 0x06020022) // 8192 bytes
  driver.arrive(large)
  assert.deepEqual(driver.received().map(({ bytes }) => bytes.length), [5000])
})

test('checksums of what arrives', () => {
  const driver = new Driver()
  driver.start()
  const about = (frame: Uint8Array): [number, number] => {
    driver.arrive(frame)
    const [{ status, errors }] = driver.received()
    return [status & 0x64, errors]
  }
  const payload = numbers(99)
  assert.deepEqual(about(ipFrame({ payload })), [4, 0])
  driver.write(reg.rxcsum, 0x300)
  assert.deepEqual(about(ipFrame({ payload })), [0x60, 0])
  assert.deepEqual(about(ipFrame({ payload, protocol: 17 })), [0x60, 0])
  assert.deepEqual(about(ipFrame({ payload, protocol: 17, sum: 0 })), [0x40, 0])
  assert.deepEqual(about(ipFrame({ payload, sum: 0x1234 })), [0x60, 0x20])
  assert.deepEqual(about(ipFrame({ payload, headerSum: 0x1234 })), [0x60, 0x40])
  assert.deepEqual(about(frameTo(mac)), [4, 0])
  driver.write(reg.rxcsum, 14)
  driver.arrive(frameTo(mac, 61))
  assert.equal(driver.received()[0].sum, internetSum(frameTo(mac, 61).subarray(14)))
})

test('frames wait for descriptors; the threshold and the overrun are told', () => {
  const driver = new Driver()
  driver.start()
  for (let count = 0; count < entries + 4; count++) {
    driver.arrive(frameTo(mac, 60 + count))
    // RDMTS 0: half of the descriptors are left.
    assert.equal((driver.read(reg.icr) >> 4) & 1, count === entries / 2 - 2 ? 1 : 0, String(count))
  }
  const first = driver.received()
  assert.deepEqual(first.map(({ bytes }) => bytes.length), Array.from({ length: entries + 4 }, (_, count) => 60 + count))
  driver.write(reg.rctl, 0)
  driver.arrive(frameTo(mac))
  driver.write(reg.rctl, 0x04008002)
  driver.clock.advance(1e6)
  assert.deepEqual(driver.received(), [])
})

test('interrupts: masks, reading clears, throttling, timers', () => {
  const driver = new Driver()
  driver.start()
  driver.write(reg.ics, 0x80)
  assert.equal(driver.pin.asserted, false)
  driver.write(reg.ims, 0x84)
  assert.deepEqual([driver.pin.asserted, driver.read(reg.ims)], [true, 0x84])
  driver.write(reg.imc, 0x80)
  assert.equal(driver.pin.asserted, false)
  assert.deepEqual([driver.read(reg.icr), driver.read(reg.icr)], [0x80, 0])
  driver.write(reg.ims, 0x81)
  driver.write(reg.itr, 1000) // 256 microseconds
  driver.clock.advance(1e6)
  driver.write(reg.ics, 0x80)
  assert.equal(driver.pin.asserted, true)
  driver.write(reg.icr, 0x80)
  driver.write(reg.ics, 0x80)
  assert.equal(driver.pin.asserted, false)
  driver.clock.advance(255_999)
  assert.equal(driver.pin.asserted, false)
  driver.clock.advance(1)
  assert.equal(driver.pin.asserted, true)
  driver.read(reg.icr)
  driver.write(reg.itr, 0)
  driver.write(reg.rdtr, 100)
  driver.write(reg.radv, 150)
  // Stored after 20, 70 and 120 microseconds: the packet timer starts anew each time, the absolute one runs from the first.
  for (const pause of [0, 20_000, 20_000]) {
    driver.clock.advance(pause)
    driver.arrive(frameTo(mac))
    assert.equal(driver.pin.asserted, false)
  }
  driver.clock.advance(20_000 + 150 * 1024 - 130_000 - 1)
  assert.equal(driver.pin.asserted, false)
  driver.clock.advance(1)
  assert.deepEqual([driver.pin.asserted, driver.read(reg.icr)], [true, 0x80])
  driver.write(reg.tidv, 8)
  driver.send(frameTo(other), 0x89)
  assert.equal(driver.pin.asserted, false)
  driver.clock.advance(8 * 1024)
  assert.deepEqual([driver.pin.asserted, driver.read(reg.icr) & 1], [true, 1])
})

test('statistics count, and reading clears them', () => {
  const driver = new Driver()
  driver.start()
  driver.send(frameTo(other, 60))
  driver.send(frameTo(new Array<number>(6).fill(0xff), 1000))
  driver.arrive(frameTo(mac, 60))
  driver.arrive(frameTo(other, 200))
  const [gptc, bptc, gotcl, gotch, tpt, ptc64, ptc1023] = [0x4080, 0x40f4, 0x4090, 0x4094, 0x40d4, 0x40d8, 0x40e8]
  assert.deepEqual([gptc, bptc, gotcl, gotch, tpt, ptc64, ptc1023].map(at => driver.read(at)), [2, 1, 1068, 0, 2, 1, 1])
  assert.deepEqual([gptc, gotcl].map(at => driver.read(at)), [0, 0])
  const [gprc, tpr, gorcl, torl] = [0x4074, 0x40d0, 0x4088, 0x40c0]
  assert.deepEqual([gprc, tpr, gorcl, torl].map(at => driver.read(at)), [1, 2, 64, 268])
})

test('reset by software keeps address and link; the window in I/O space reaches all registers', () => {
  const driver = new Driver()
  driver.start()
  driver.write(reg.ra, 0)
  const { handler } = driver.card.bars[1]
  handler.writeMmio(0, 4, reg.ctrl)
  handler.writeMmio(4, 4, driver.read(reg.ctrl) | (1 << 26))
  assert.deepEqual([driver.read(reg.rctl), driver.read(reg.ra), driver.read(reg.status) & 2], [0, 0x12005452, 2])
  handler.writeMmio(0, 4, reg.ra + 4)
  assert.equal(handler.readMmio(4, 4), 0x80005634)
  assert.equal(driver.read(0x5f00), 0xffffffff)
  assert.match(driver.logs.join(), /read at 0x5f00, where no register is/)
})

test('loopback gives what is sent to ourselves', () => {
  const driver = new Driver()
  driver.start(0x04008000 | (3 << 6))
  driver.send(frameTo(mac))
  driver.clock.advance(1e6)
  assert.deepEqual([driver.received()[0].bytes, driver.sent], [frameTo(mac), []])
})

test('a saved card goes on with frames on their way and half a packet', () => {
  const first = new Driver()
  first.start()
  first.dma.memory.set(frameTo(other, 80), place.data)
  first.put(BigInt(place.data), 50n)
  first.ring()
  first.arrive(frameTo(mac, 70))
  const second = new Driver()
  second.dma.memory.set(first.dma.memory)
  second.clock.time = first.clock.time
  second.card.restoreState(JSON.parse(JSON.stringify(first.card.saveState())))
  assert.deepEqual(second.card.saveState(), first.card.saveState())
  second.put(0n, 0n) // already worked through
  second.put(BigInt(place.data + 50), 30n | (1n << 24n))
  second.ring()
  assert.deepEqual([second.sent, second.received()[0].bytes], [[frameTo(other, 80)], frameTo(mac, 70)])
})

/** A driver that means no good: nothing may throw or hang. */
test('random registers, descriptors and frames do no harm', () => {
  let seed = 815
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0
    return Math.floor((seed / 2 ** 32) * below)
  }
  const registers = Object.values(reg)
  const odd = [0, 1, 2, 0xf, 0x10, 0x80, 0xff, 0xffff, place.data, place.receive, 0xff000, 0x7ffff000, 0xffffffff]
  const pick = (): number => (random(3) === 0 ? random(2 ** 32) : odd[random(odd.length)])
  const driver = new Driver({ wantsChecksums: true })
  for (let round = 0; round < 3000; round++) {
    if (random(20) === 0) {
      driver.card.reset()
      driver.start(0x04008000 | random(2 ** 26))
      driver.sent.length = 0
    }
    if (random(6) === 0) driver.write(registers[random(registers.length)] + (random(8) === 0 ? random(64) * 4 : 0), pick())
    if (random(6) === 0) driver.read(random(0x20000) & ~3)
    for (let index = 0; index < entries; index++) {
      const bits = BigInt(random(8) === 0 ? pick() : random(3000)) | (BigInt(random(3)) << 20n) | (BigInt(random(256)) << 24n)
      const high = bits | (BigInt(pick()) << 32n)
      driver.view.setBigUint64(place.transmit + index * 16, BigInt(pick()) | (BigInt(random(9) === 0 ? pick() : 0) << 32n), true)
      driver.view.setBigUint64(place.transmit + index * 16 + 8, high, true)
    }
    driver.write(reg.tdt, random(8) === 0 ? pick() : random(entries))
    driver.arrive(frameTo(random(2) === 0 ? mac : other, 14 + random(random(10) === 0 ? 20_000 : 1600), [random(256), random(256)]))
    if (random(3) === 0) driver.write(reg.rdt, random(8) === 0 ? pick() : random(entries))
  }
  driver.card.reset()
  assert.equal(driver.read(reg.status) & 2, 2)
})
