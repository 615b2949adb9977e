/** CPUID and the models against Intel SDM vol. 2, "CPUID-CPU Identification", and AMD APM vol. 3. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { cpuid, type CpuidState } from './cpuid.ts'
import { featureName, featureWords } from './features.ts'
import { modelTable } from './model-table.ts'
import { createModel, modelNames } from './models.ts'

const state: CpuidState = { apicId: 0, apicEnabled: true, osxsave: false, ospke: false, xcr0: 1n, xss: 0n }
const text = (...registers: number[]): string => Buffer.from(new Uint32Array(registers).buffer).toString('latin1')

test('vendor and brand read as text', () => {
  for (const name of modelNames) {
    const model = createModel(name)
    const [, b, c, d] = cpuid(model, 0, 0, state)
    assert.equal(text(b, d, c), model.vendor)
    const brand = [2, 3, 4].map(i => text(...cpuid(model, 0x80000000 + i, 0, state))).join('')
    assert.equal(brand.replace(/\0+$/, ''), model.identity.brand)
    assert.ok(model.identity.brand.length < 48)
  }
})

test('no two features share a bit', () => {
  for (const word of featureWords) assert.equal(new Set(Object.values(word.bits)).size, Object.keys(word.bits).length)
  const names = featureWords.flatMap(word => Object.keys(word.bits))
  assert.equal(new Set(names).size, names.length)
})

test('bits that everybody knows are where the manuals have them', () => {
  const model = createModel('intel')
  const bit = (leaf: number, register: number, number: number,
    subleaf = 0): boolean => ((cpuid(model, leaf, subleaf, state)[register] >>> number) & 1) === 1
  assert.ok(bit(1, 3, 0) && bit(1, 3, 26) && bit(1, 2, 21) && bit(1, 2, 24) && bit(1, 2, 17) && bit(1, 2, 13),
    'fpu sse2 x2apic tsc-deadline pcid cx16')
  assert.ok(bit(7, 1, 7) && bit(7, 1, 20) && bit(7, 1, 10) && bit(7, 2, 3) && bit(7, 3, 29), 'smep smap invpcid pku arch_capabilities')
  assert.ok(bit(0x80000001, 3, 29) && bit(0x80000001, 3, 11) && bit(0x80000001, 3, 20) && bit(0x80000007, 3, 8),
    'lm syscall nx invariant tsc')
  assert.ok(!bit(7, 2, 16) && !bit(1, 2, 28), 'neither la57 nor avx')
})

test('AVX state: component 2 in leaf 0DH, where the processor has it', () => {
  const haswell = createModel('Haswell')
  assert.deepEqual(cpuid(haswell, 0xd, 0, { ...state, xcr0: 7n }), [7, 832, 832, 0])
  assert.deepEqual(cpuid(haswell, 0xd, 2, state), [256, 576, 0, 0])
  assert.deepEqual(cpuid(createModel('intel'), 0xd, 2, state), [0, 0, 0, 0])
  assert.ok(!createModel('Haswell,-avx').has('avx2') && !createModel('Haswell,-xsave').has('avx'), 'what rests on it goes with it')
})

test('OSXSAVE, OSPKE and APIC follow the state', () => {
  const model = createModel('intel')
  assert.equal((cpuid(model, 1, 0, { ...state, osxsave: true })[2] >>> 27) & 1, 1)
  assert.equal((cpuid(model, 7, 0, { ...state, ospke: true })[2] >>> 4) & 1, 1)
  assert.equal((cpuid(model, 1, 0, { ...state, apicEnabled: false })[3] >>> 9) & 1, 0)
})

test('leaf 15H gives a TSC of 1 GHz', () => {
  const [denominator, numerator, crystal] = cpuid(createModel('intel'), 0x15, 0, state)
  assert.equal((crystal * numerator) / denominator, 1e9)
})

test('XSAVE sizes follow XCR0', () => {
  const model = createModel('intel')
  assert.deepEqual(cpuid(model, 0xd, 0, { ...state, xcr0: 3n }), [0x203, 576, 2696, 0])
  assert.equal(cpuid(model, 0xd, 0, { ...state, xcr0: 0x203n })[1], 2696)
  assert.equal(cpuid(model, 0xd, 1, { ...state, xcr0: 0x203n })[1], 584)
  assert.deepEqual(cpuid(model, 0xd, 9, state), [8, 2688, 0, 0])
})

test('topology and caches of four processors', () => {
  const model = createModel('intel', { processors: 4 })
  assert.deepEqual(cpuid(model, 0xb, 0, { ...state, apicId: 3 }), [0, 1, 0x100, 3])
  assert.deepEqual(cpuid(model, 0xb, 1, { ...state, apicId: 3 }), [2, 4, 0x201, 3])
  const [a, b, c] = cpuid(model, 4, 0, state)
  assert.equal(((b >>> 22) + 1) * ((b & 0xfff) + 1) * (c + 1), 48 << 10)
  assert.deepEqual([a & 31, (a >> 5) & 7], [1, 1])
  assert.equal(cpuid(model, 4, 4, state)[0] & 31, 0)
})

test('above the highest leaf Intel repeats the highest basic leaf, AMD gives zeros', () => {
  const intel = createModel('intel')
  assert.deepEqual(cpuid(intel, 0x40000000, 0, state), cpuid(intel, intel.identity.basicLeaves, 0, state))
  assert.deepEqual(cpuid(createModel('amd'), 0x40000000, 0, state), [0, 0, 0, 0])
})

test('models: features are added and removed, unknown words name the nearest', () => {
  assert.ok(!createModel('intel,-pcid').has('pcid'))
  assert.ok(createModel('intel,+la57').linearBits === 57)
  assert.ok(!createModel('intel,-xsave').has('xsaves'))
  assert.throws(() => createModel('intel,+smapp'), /smap/)
  assert.throws(() => createModel('itnel'), /intel/)
  assert.equal(featureName('SSE4.2'), 'sse4_2')
  assert.equal(createModel('max,+svm').vendor, 'AuthenticAMD')
  assert.equal(createModel('max,+vmx').vendor, 'GenuineIntel')
  assert.equal(createModel('qemu64,vendor=GenuineIntel,phys-bits=36').physicalBits, 36)
})

test('signatures are those of the processors: family, model and stepping as Intel and AMD list them', () => {
  // EAX of leaf 1, as CPUID databases show it for these chips.
  const known = {
    Nehalem: 0x106a3, Westmere: 0x206c1, SandyBridge: 0x206a1, IvyBridge: 0x306a9, Haswell: 0x306c4, Broadwell: 0x306d2,
    'Skylake-Client': 0x506e3, 'Skylake-Server': 0x50654, 'Cascadelake-Server': 0x50656, 'Icelake-Server': 0x606a6, SapphireRapids: 0x806f8,
    Opteron_G3: 0x100f23, Opteron_G4: 0x600f12, Opteron_G5: 0x600f20, EPYC: 0x800f12, 'EPYC-Rome': 0x830f10, 'EPYC-Milan': 0xa00f11,
    'EPYC-Genoa': 0xa10f10,
  }
  for (const [name, signature] of Object.entries(known)) assert.equal(cpuid(createModel(name), 1, 0, state)[0], signature, name)
})

test('a model has what its processor has, as far as it is implemented, and says what not', () => {
  const ivyBridge = createModel('IvyBridge')
  for (const feature of ['sse4_2', 'aes', 'xsave', 'rdrand', 'smep', 'x2apic']) assert.ok(ivyBridge.has(feature), feature)
  for (const feature of ['smap', 'movbe', 'invpcid', 'avx2', 'est']) assert.ok(!ivyBridge.has(feature), feature)
  assert.ok(ivyBridge.lacking.includes('est'))
  assert.ok(!ivyBridge.lacking.includes('avx2'), 'which Ivy Bridge has not in silicon either')
  const milan = createModel('EPYC-Milan')
  assert.ok(milan.has('sha_ni') && milan.has('abm') && milan.has('pku') && !milan.has('tsc_adjust') && !milan.has('ss'))
  assert.ok(!createModel('EPYC').has('pku') && !createModel('Opteron_G2').has('popcnt') && createModel('Opteron_G3').has('popcnt'))
})

test('no model has a feature that has no name, and each has an even cache', () => {
  for (const name of modelNames) {
    const model = createModel(name, { processors: 2 })
    for (const feature of modelTable[name].features.trim().split(/\s+/)) assert.equal(featureName(feature), feature, name)
    for (const { bytes, ways } of model.identity.caches) assert.ok(Number.isInteger(bytes / (ways * 64)), name)
  }
})

test('keys change the identity; what cannot be had is an error with enforce, and told without', () => {
  const model = createModel('Haswell,family=6,model=63,stepping=2,level=11,model-id=Test CPU,host-phys-bits=on')
  assert.deepEqual([model.identity.signature, model.identity.basicLeaves, model.identity.brand], [0x306f2, 11, 'Test CPU'])
  assert.throws(() => createModel('Haswell,stepping=16'), /stepping=16: expected a number from 0 to 15/)
  assert.throws(() => createModel('Haswell,phys-bits='), /expected a number from 32 to 52/)
  assert.throws(() => createModel('Haswell,hv_passthrough'), /cannot read 'hv_passthrough'/)
  assert.deepEqual(createModel('max,+avx512f').notOffered, ['avx512f'])
  assert.throws(() => createModel('max,+avx512f,enforce'), /not implemented: avx512f/)
  assert.deepEqual(createModel('max,-vmx-mbec,+vmx-ept').notOffered, ['vmx-ept'])
  assert.ok(!createModel('Haswell').has('monitor') && createModel('Haswell,+monitor').has('monitor'))
})
