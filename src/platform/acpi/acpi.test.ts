/** Tests of the ACPI tables: structure by the specification, and a reading by ACPICA's own disassembler and compiler. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'node:test'
import { viewOf } from '../boot/image.ts'
import { createMemoryMap, e820Type, hpetBase } from '../memory-map.ts'
import { eisaId, integer, namePath, packageOf, uuid } from './aml.ts'
import { acpiTables, type AcpiOptions, type AcpiTable } from './tables.ts'

const options = (chipset: 'pc' | 'q35', cpus = 2): AcpiOptions => ({
  map: createMemoryMap(chipset, 2 ** 30), cpus, apicIds: Array.from({ length: cpus }, (_, index) => index),
  hpetBase, canSleep: true, pmBase: 0x600,
  serialPorts: [{ base: 0x3f8, irq: 4 }], gsiOf: (device, pin) => 16 + ((device + pin - 1) & 7), irqOf: () => 10,
})
const sum = (bytes: Uint8Array): number => bytes.reduce((total, byte) => total + byte, 0) & 0xff
const find = (tables: AcpiTable[], signature: string): AcpiTable => tables.find(table => table.signature === signature)!

test('AML encodings as the specification gives them', () => {
  assert.deepEqual(namePath('\\_SB.PCI0.ISA'), [0x5c, 0x2f, 3, ...Buffer.from('_SB_PCI0ISA_')])
  assert.deepEqual(namePath('^RTC'), [0x5e, ...Buffer.from('RTC_')])
  assert.deepEqual(namePath('\\'), [0x5c, 0])
  assert.deepEqual([integer(0), integer(2), integer(0x100), integer(2 ** 33)].map(bytes => bytes.length), [1, 2, 3, 9])
  assert.deepEqual(eisaId('PNP0A03'), [0x0c, 0x41, 0xd0, 0x0a, 0x03])
  assert.deepEqual(packageOf(Array.from({ length: 70 }, () => [1])).slice(0, 4), [0x12, 0x49, 0x04, 70])
  assert.deepEqual(uuid('33db4d5b-1ff7-401c-9657-7441c03dd766').slice(0, 10), [0x5b, 0x4d, 0xdb, 0x33, 0xf7, 0x1f, 0x1c, 0x40, 0x96, 0x57])
})

for (const chipset of ['pc', 'q35'] as const) {
  test(`${chipset}: every table sums to zero, states its length, and lies where the E820 map says`, () => {
    const given = options(chipset)
    for (const { signature, address, bytes } of acpiTables(given)) {
      const type = given.map.e820.find(({ base, size }) => address >= base && address + bytes.length <= base + size)?.type
      if (signature === 'RSD PTR ') {
        assert.equal(sum(bytes), 0)
        assert.equal(sum(bytes.subarray(0, 20)), 0)
        assert.equal(type, e820Type.reserved)
        assert.equal(address % 16, 0)
        continue
      }
      assert.equal(viewOf(bytes).getUint32(4, true), bytes.length, signature)
      assert.equal(type, signature === 'FACS' ? e820Type.acpiNvs : e820Type.acpiReclaimable, signature)
      assert.equal(address % 64, 0)
      if (signature !== 'FACS') assert.equal(sum(bytes), 0, signature)
    }
  })

  test(`${chipset}: the chain RSDP, XSDT, FADT, FACS, DSDT leads to tables of those names`, () => {
    const tables = acpiTables(options(chipset))
    const at = (address: number): string => tables.find(table => table.address === address)!.signature
    const pointer = find(tables, 'RSD PTR ').bytes
    assert.equal(pointer[15], 2)
    const xsdt = find(tables, 'XSDT')
    assert.equal(Number(viewOf(pointer).getBigUint64(24, true)), xsdt.address)
    const listed: string[] = []
    for (let offset = 36; offset < xsdt.bytes.length; offset += 8) listed.push(at(Number(viewOf(xsdt.bytes).getBigUint64(offset, true))))
    assert.deepEqual(listed, chipset === 'q35' ? ['FACP', 'APIC', 'HPET', 'MCFG', 'WAET'] : ['FACP', 'APIC', 'HPET', 'WAET'])
    const fadt = viewOf(find(tables, 'FACP').bytes)
    assert.deepEqual([fadt.getUint32(36, true), fadt.getUint32(40, true)].map(at), ['FACS', 'DSDT'])
    assert.equal(fadt.getBigUint64(140, true), BigInt(fadt.getUint32(40, true)))
    assert.equal(fadt.getUint32(76, true), 0x608)
  })
}

test('the MADT lists xAPIC IDs in the short form, and those from 255 on as x2APICs', () => {
  const bytes = find(acpiTables({ ...options('q35', 3), apicIds: [0, 1, 256] }), 'APIC').bytes
  const entries: number[][] = []
  for (let offset = 44; offset < bytes.length; offset += bytes[offset + 1]) {
    entries.push([...bytes.subarray(offset, offset + bytes[offset + 1])])
  }
  assert.deepEqual(entries.map(entry => entry[0]), [0, 0, 9, 1, 2, 2, 4, 10])
  assert.deepEqual(entries[2].slice(4), [0, 1, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0])
  assert.deepEqual(entries[4].slice(2, 8), [0, 0, 2, 0, 0, 0])
  assert.deepEqual(entries[5].slice(2), [0, 9, 9, 0, 0, 0, 0x0d, 0])
})

/** Debian's acpica-tools. Continuous integration must have it; elsewhere its absence is said. */
test('ACPICA disassembles every table without complaint, and compiles the DSDT again', context => {
  if (spawnSync('iasl', ['-v']).error) {
    assert.ok(!process.env.CI, 'iasl is missing: install acpica-tools')
    return context.diagnostic('iasl is not installed (Debian: acpica-tools): ACPICA did not read the tables')
  }
  const folder = mkdtempSync(join(tmpdir(), 'vitrine-acpi-'))
  try {
    for (const chipset of ['pc', 'q35'] as const) {
      for (const { signature, bytes } of acpiTables({ ...options(chipset, 4), hasFwCfg: true })) {
        if (signature === 'RSD PTR ') continue // iasl reads tables only
        const file = join(folder, `${chipset}-${signature}`)
        writeFileSync(`${file}.aml`, bytes)
        const { status, stdout, stderr } = spawnSync('iasl', ['-d', `${file}.aml`], { encoding: 'utf8' })
        const said = stdout + stderr
        const text = readFileSync(`${file}.dsl`, 'utf8')
        assert.ok(status === 0 && !/error|invalid|incorrect|should be/i.test(said), `${signature}: ${said}`)
        assert.ok(!/\*\*\*\*|incorrect|invalid/i.test(text.replace(/Checksum : .. *$/gm, '')), `${signature}: ${text}`)
      }
      const compiled = spawnSync('iasl', ['-p', join(folder, 'again'), join(folder, `${chipset}-DSDT.dsl`)], { encoding: 'utf8' })
      assert.match(compiled.stdout, / 0 Errors/, compiled.stdout + compiled.stderr)
    }
    const text = readFileSync(join(folder, 'q35-DSDT.dsl'), 'utf8')
    for (const expected of ['PNP0A08', 'PNP0501', 'PNP0B00', 'ACPI0007', 'QEMU0002', 'Name (_S5', 'Method (_OSC', 'Method (_PRT']) {
      assert.ok(text.includes(expected), expected)
    }
  } finally {
    rmSync(folder, { recursive: true })
  }
})
