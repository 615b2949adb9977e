/** Firmware in ROM: where it is seen, the chipset's shadow registers (440FX datasheet, "PAM"), the script of ACPI tables for SeaBIOS. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isInputError } from '../errors.ts'
import type { MachineOptions } from '../api.ts'
import { createMachine, type VitrineMachine } from '../machine.ts'
import { bootOrderCmos } from './firmware.ts'

const MiB = 2 ** 20

/** 256 KiB of a pattern, ending in code at the reset vector. */
function rom(code: number[] = [0xea, 0x00, 0xe0, 0x00, 0xf0]): Uint8Array {
  const image = Uint8Array.from({ length: 256 * 1024 }, (_, index) => (index >>> 12) ^ index)
  image.set(code, image.length - 16)
  return image
}
const machine = (options: Partial<MachineOptions> = {}): VitrineMachine => createMachine({ bios: rom(), ...options }) as VitrineMachine

/** A configuration register of bus 0, function 0 of device 0. */
function config(pc: VitrineMachine['pc'], register: number, value?: number): number {
  pc.ports.write(0xcf8, 4, 0x80000000 + (register & ~3))
  if (value !== undefined) pc.ports.write(0xcfc + (register & 3), 1, value)
  return pc.ports.read(0xcfc + (register & 3), 1)
}

for (const [chipset, pam] of [['q35', 0x90], ['pc', 0x59]] as const) {
  test(`${chipset}: the BIOS segment is ROM, then RAM, then a read-only copy, and ROM again after reset`, () => {
    const { pc, core: { physical } } = machine({ chipset })
    const image = rom()
    const read = (address: number): number[] => {
      const bytes = new Uint8Array(2)
      physical.read(address, bytes)
      return [...bytes]
    }
    const inRom = (address: number): number[] => [...image.subarray(image.length - (2 ** 20 - address)).subarray(0, 2)]
    assert.deepEqual(read(0xffff0), [0xea, 0x00])
    assert.deepEqual(read(0xfffffff0), [0xea, 0x00])
    assert.deepEqual(read(0xe4000), inRom(0xe4000))
    assert.deepEqual(read(0xc8000), [0xff, 0xff])
    physical.write(0xf0000, Uint8Array.of(1, 2))
    assert.deepEqual(read(0xf0000), inRom(0xf0000))
    assert.equal(config(pc, pam), 0)

    assert.equal(config(pc, pam, 0xff), 0x30)
    assert.equal(config(pc, pam + 3, 0x33), 0x33)
    assert.deepEqual(read(0xf0000), [0, 0])
    physical.write(0xf0000, Uint8Array.of(3, 4))
    physical.write(0xd0000, Uint8Array.of(5, 6))
    assert.deepEqual([read(0xf0000), read(0xd0000), read(0xe0000)], [[3, 4], [5, 6], inRom(0xe0000)])

    config(pc, pam, 0x10)
    physical.write(0xf0000, Uint8Array.of(7, 8))
    assert.deepEqual(read(0xf0000), [3, 4])

    pc.reset()
    assert.deepEqual([read(0xf0000), read(0xd0000)], [inRom(0xf0000), [0xff, 0xff]])
    config(pc, pam, 0x30)
    assert.deepEqual(read(0xf0000), [3, 4])
  })
}

test('the processor starts 16 bytes below 4 GiB, and the ROM cannot be written', () => {
  // mov byte cs:[fff5h], 0 (a write to ROM); mov al, cs:[fff5h]; out 0xf4, al
  const code = [0x2e, 0xc6, 0x06, 0xf5, 0xff, 0x00, 0x2e, 0xa0, 0xf5, 0xff, 0xe6, 0xf4]
  const ran = machine({ bios: rom(code), devices: [{ name: 'isa-debug-exit', properties: { iobase: '0xf4' } }] })
  const written = ran.run({ maxInstructions: 3 })
  assert.deepEqual(written, { kind: 'debug-exit', status: 1 })
  const { bytes } = { bytes: ran.readPhysical(0xfffffff0, 12) }
  assert.deepEqual([...bytes], code)
})

test('what is no firmware, or comes with a kernel, is refused', () => {
  assert.throws(() => machine({ bios: new Uint8Array(1000) }), /whole 64 KiB, at most 16 MiB, found 1000 bytes/)
  assert.throws(() => machine({ bios: new Uint8Array(65536) }), /code at the reset vector/)
  assert.throws(() => machine({ kernel: new Uint8Array(512) }), /a kernel or firmware to start with, found both/)
})

test('boot orders become nibbles in CMOS', () => {
  assert.deepEqual(bootOrderCmos({ order: 'cad' }), [[0x3d, 0x12], [0x38, 0x31]])
  assert.deepEqual(bootOrderCmos({ order: 'd' }), [[0x3d, 0x03], [0x38, 0x01]])
  assert.throws(() => bootOrderCmos({ order: 'xyz' }), /three letters of a, c, d and n/)
})

/** Does what firmware does with the script, with tables at `base`, as "bios_linker_loader" in QEMU's documentation says. */
function link(files: Map<string, Uint8Array>, base: Map<string, number>): void {
  const script = files.get('etc/table-loader')!
  const view = new DataView(script.buffer, script.byteOffset, script.length)
  const name = (at: number): string => {
    const bytes = script.subarray(at, at + 56)
    return new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)))
  }
  for (let at = 0; at < script.length; at += 128) {
    const [command, target] = [view.getUint32(at, true), files.get(name(at + 4))!]
    if (command === 2) {
      const [offset, size] = [view.getUint32(at + 116, true), script[at + 120]]
      let carry = base.get(name(at + 60))!
      for (let byte = 0; byte < size; byte++) {
        carry += target[offset + byte]
        target[offset + byte] = carry % 256
        carry = Math.floor(carry / 256)
      }
    } else if (command === 3) {
      const [offset, start, length] = [60, 64, 68].map(each => view.getUint32(at + each, true))
      target[offset] = 0
      target[offset] = -target.subarray(start, start + length).reduce((sum, byte) => sum + byte, 0)
    }
  }
}

/** What firmware reads of the configuration device, by name. */
function filesOf({ pc }: VitrineMachine): Map<string, Uint8Array> {
  const read = (key: number, length: number): Uint8Array => {
    pc.ports.write(0x510, 2, key)
    return Uint8Array.from({ length }, () => pc.ports.read(0x511, 1))
  }
  const count = new DataView(read(0x19, 4).buffer).getUint32(0)
  const directory = read(0x19, 4 + 64 * count)
  return new Map(Array.from({ length: count }, (_, index) => {
    const view = new DataView(directory.buffer, 4 + index * 64, 64)
    const name = directory.subarray(12 + index * 64, 68 + index * 64)
    return [new TextDecoder().decode(name.subarray(0, name.indexOf(0))), read(view.getUint16(4), view.getUint32(0)).slice()]
  }))
}

test("a user's files are beside the machine's own, which keep their names", () => {
  const given = (name: string): VitrineMachine => machine({ fwCfgFiles: new Map([[name, Uint8Array.of(1, 2, 3)]]) })
  assert.deepEqual([...filesOf(given('opt/x')).get('opt/x')!], [1, 2, 3])
  assert.equal(filesOf(given('opt/x')).size, filesOf(machine({})).size + 1)
  for (const name of ['etc/e820', '', 'n'.repeat(56), 'a b']) assert.throws(() => given(name), error => isInputError(error))
})

test('firmware is asked to allow VMXON and to lock IA32_FEATURE_CONTROL where there is VT-x', () => {
  const name = 'etc/msr_feature_control'
  assert.deepEqual([...filesOf(machine({ cpu: { model: 'intel' } })).get(name)!], [5, 0, 0, 0, 0, 0, 0, 0])
  assert.equal(filesOf(machine({ cpu: { model: 'amd' } })).has(name), false)
})

test('the ACPI script leads from the RSDP to every table, with right checksums', () => {
  const files = filesOf(machine({ memory: 64 * MiB, cpus: 2 }))
  const base = 0x3f00000
  link(files, new Map([['etc/acpi/tables', base], ['etc/acpi/rsdp', 0xf5a40]]))
  const tables = files.get('etc/acpi/tables')!
  const view = new DataView(tables.buffer)
  const sum = (bytes: Uint8Array): number => bytes.reduce((total, byte) => (total + byte) & 0xff, 0)
  const table = (address: number): { signature: string; at: number; length: number } => {
    const at = address - base
    const length = view.getUint32(at + 4, true)
    const signature = String.fromCharCode(...tables.subarray(at, at + 4))
    if (signature !== 'FACS') assert.equal(sum(tables.subarray(at, at + length)), 0, signature)
    return { signature, at, length }
  }
  const rsdp = files.get('etc/acpi/rsdp')!
  assert.deepEqual([sum(rsdp.subarray(0, 20)), sum(rsdp)], [0, 0])
  const root = new DataView(rsdp.buffer)
  const xsdt = table(Number(root.getBigUint64(24, true)))
  assert.deepEqual([xsdt.signature, table(root.getUint32(16, true)).signature], ['XSDT', 'RSDT'])
  const entries = Array.from({ length: (xsdt.length - 36) / 8 }, (_, index) => view.getBigUint64(xsdt.at + 36 + index * 8, true))
  const listed = entries.map(address => table(Number(address)))
  for (const signature of ['FACP', 'APIC', 'HPET']) assert.ok(listed.some(each => each.signature === signature), signature)
  const fadt = listed.find(({ signature }) => signature === 'FACP')!.at
  assert.deepEqual([table(view.getUint32(fadt + 36, true)).signature, table(view.getUint32(fadt + 40, true)).signature], ['FACS', 'DSDT'])
  assert.equal(view.getBigUint64(fadt + 140, true), BigInt(view.getUint32(fadt + 40, true)))
  assert.equal((view.getUint32(fadt + 36, true)) % 64, 0)
})
