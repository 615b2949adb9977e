/** Examples are those of "Debugging with GDB", appendix "GDB Remote Serial Protocol", section "Overview". */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bytesToPayload, encodePacket, fromHex, fromHexLittleEndian, PacketParser } from './protocol.ts'
import { payloadToBytes, toHex, toHexLittleEndian } from './protocol.ts'
import { includedFiles, parseTargetDescription, targetDescription, targetRegisters } from './target.ts'

const ascii = (text: string): Uint8Array => payloadToBytes(text)

test('a packet is framed with its checksum modulo 256', () => {
  assert.equal(bytesToPayload(encodePacket('g')), '$g#67')
  assert.equal(bytesToPayload(encodePacket('OK')), '$OK#9a')
})

test('the special bytes are escaped with 7Dh and XOR 20h', () => {
  assert.equal(bytesToPayload(encodePacket('}')), '$}]#da')
  const all = String.fromCharCode(...Array.from({ length: 256 }, (_, i) => i))
  assert.deepEqual(new PacketParser().feed(encodePacket(all)), [{ kind: 'packet', payload: all }])
})

test('run-length encoding: "0* " stands for 0000', () => {
  assert.deepEqual(new PacketParser().feed(ascii('$0* #7a')), [{ kind: 'packet', payload: '0000' }])
})

test('a stream is understood whatever the sizes in which it arrives', () => {
  const stream = ascii('+$OK#9a-\x03%Stop:T05#00$g#67')
  const whole = new PacketParser().feed(stream)
  const parser = new PacketParser()
  const single = Array.from(stream).flatMap((byte) => parser.feed(Uint8Array.of(byte)))
  assert.deepEqual(single, whole)
  assert.deepEqual(
    whole.map((event) => event.kind),
    ['ack', 'packet', 'nack', 'interrupt', 'corrupt', 'packet'],
  )
})

test('a wrong checksum and a packet that never ended are told, and the next packet is read', () => {
  const events = new PacketParser().feed(ascii('$g#68$abc$m0,4#fd'))
  assert.deepEqual(
    events.map((event) => event.kind),
    ['corrupt', 'corrupt', 'packet'],
  )
})

test('numbers are in target byte order', () => {
  assert.equal(toHexLittleEndian(0x12345678n, 4), '78563412')
  assert.equal(fromHexLittleEndian('78563412'), 0x12345678n)
  assert.equal(toHex(fromHex('00ff10')), '00ff10')
})

test('the target description announces the registers that it packs, numbered without gaps', () => {
  const parsed = parseTargetDescription(targetDescription())
  assert.deepEqual(
    parsed.map(({ name, bits, type }) => ({ name, bits, type })),
    targetRegisters.map(({ name, bits, type }) => ({ name, bits, type })),
  )
  const commented = '<reg name="a" bitsize="8"/><!-- <reg name="b" bitsize="8"/>\n--><reg name="c" bitsize="8"/>'
  assert.deepEqual(parseTargetDescription(commented).map(({ name }) => name), ['a', 'c'])
  assert.deepEqual(includedFiles('<target><xi:include href="i386-64bit.xml"/></target>'), ['i386-64bit.xml'])
})
