/**
 * The platform's own PCI functions: host bridge and LPC/ISA bridge of `q35` (Intel MCH and ICH9 datasheets) and `pc` (Intel 440FX and
 * PIIX3/PIIX4 datasheets).
 */
import { ConfigSpace, type Identity, register, status } from './config-space.ts'
import { bdf, type Bdf, type PciFunction } from './function.ts'
import { extendedTsegMegabytes, SmramControl } from './smram.ts'

/** A function that is registers only. */
class PlainFunction implements PciFunction {
  readonly name: string
  readonly config: ConfigSpace
  readonly bars = []

  constructor(name: string, identity: Identity) {
    this.name = name
    this.config = new ConfigSpace(identity)
    this.config.set(register.status, 2, this.config.get(register.status, 2) & status.capabilities)
  }

  reset(): void {}

  saveState(): null {
    return null
  }

  restoreState(): void {}
}

export interface ChipsetFunctions {
  functions: { id: Bdf; fn: PciFunction }[]
  /** The ISA IRQ that a PIRQ wire (0 to 7) is routed to, or undefined. */
  irqOfWire: (wire: number) => number | undefined
  smram: SmramControl
  /** A write to the SMI command port asserts SMI#. `smiControl`: SMI_EN of the power-management block. */
  commandSmi: (smiControl: number) => boolean
  /** GBL_SMI_EN of SMI_EN cannot be written any more. */
  smiLocked: () => boolean
  /** The host bridge's PAM registers. */
  pam: { config: ConfigSpace; register: number }
}

const bridgeClass = { host: 0x060000, isa: 0x060100, other: 0x068000 } as const
const qemuSubsystem = { subsystemVendor: 0x1af4, subsystem: 0x1100 }
/** PIRQ[n] Routing Control: bit 7 set leaves the wire unrouted; otherwise bits 3-0 are the IRQ. */
const unrouted = 0x80
/** SMI_EN: GBL_SMI_EN and APMC_EN. The PIIX4 has the latter in its Device Activity B register. */
const globalSmiEnable = 1
const apmcEnable = 0x20
const devactb = 0x58
const devactbApmcEnable = 1 << 25
/**
 * Where firmware notes what it made of low memory: the bases of graphics' and SMM's stolen memory, and its top. They only keep it: low RAM
 * ends where it ends, with TSEG below (Intel 3 Series Express Chipset datasheet, "DRAM Controller Registers").
 */
const mchRegister = { gbsm: 0xa4, tsegmb: 0xac, tolud: 0xb0 } as const
/** GEN_PMCON_1 and its SMI_LOCK (Intel ICH9 datasheet, "General PM Configuration 1 Register"). */
const powerManagement1 = 0xa0
const smiLock = 0x10
/** What firmware chooses, as QEMU's does. */
const firmwareRoute = [10, 10, 11, 11]

/** Host bridge and LPC bridge of a Q35. `pmBase`: the port of ACPI's registers; `ecamBase`, `lowTop`: physical addresses. */
export function q35Functions(pmBase: number, ecamBase: number, lowTop: number): ChipsetFunctions {
  const mch = new PlainFunction('q35-mch', { vendor: 0x8086, device: 0x29c0, classCode: bridgeClass.host, ...qemuSubsystem })
  const pciexbar = 0x60
  mch.config.set(pciexbar, 4, (ecamBase | 1) >>> 0) // 256 buses, enabled; fixed: software that moves it finds the old value
  const lpc = new PlainFunction('ich9-lpc', {
    vendor: 0x8086, device: 0x2918, classCode: bridgeClass.isa, revision: 2, multifunction: true, ...qemuSubsystem,
  })
  lpc.config.set(0x40, 4, pmBase | 1)
  lpc.config.set(0x44, 1, 0x80) // ACPI_CNTL: enabled, SCI on IRQ 9
  lpc.config.set(0x82, 2, 1) // LPC_EN: COM1 is there, at 3F8h (LPC_IOD = 0); drivers of early consoles look here
  lpc.config.setOnce(powerManagement1, smiLock)
  offerExtendedTseg(mch.config)
  for (const [offset, mask] of [[mchRegister.gbsm, 0xfff00000], [mchRegister.tsegmb, 0xfff00000], [mchRegister.tolud, 0xfff0]])
    mch.config.allow(offset, 4, mask)
  const routes = [0x60, 0x61, 0x62, 0x63, 0x68, 0x69, 0x6a, 0x6b]
  return {
    functions: [{ id: bdf(0, 0, 0), fn: mch }, { id: bdf(0, 31, 0), fn: lpc }], irqOfWire: routing(lpc.config, routes),
    smram: new SmramControl(mch.config, 0x9d, lowTop),
    smiLocked: () => (lpc.config.get(powerManagement1, 1) & smiLock) !== 0,
    commandSmi: smiControl => (smiControl & globalSmiEnable) !== 0 && (smiControl & apmcEnable) !== 0,
    pam: { config: mch.config, register: 0x90 },
  }
}

/**
 * TSEG's size 3, which the datasheet reserves, is QEMU's "extended TSEG": software that writes FFFFh here reads back how many MiB that are
 * (QEMU's docs/specs do not have it; EDK2's OvmfPkg, "Q35MchIch9.h": MCH_EXT_TSEG_MB).
 */
function offerExtendedTseg(config: ConfigSpace): void {
  const [offset, query] = [0x50, 0xffff]
  config.allow(offset, 2, query)
  config.onWrite((at, size) => {
    if (at <= offset + 1 && at + size > offset && config.get(offset, 2) === query) config.set(offset, 2, extendedTsegMegabytes)
  })
}

/** Host bridge, ISA bridge and power management of an i440FX. `pmBase`: the port of ACPI's registers. */
export function pcFunctions(pmBase: number): ChipsetFunctions {
  const host = new PlainFunction('i440fx', { vendor: 0x8086, device: 0x1237, classCode: bridgeClass.host, revision: 2, ...qemuSubsystem })
  const isa = new PlainFunction('piix3-isa', {
    vendor: 0x8086, device: 0x7000, classCode: bridgeClass.isa, multifunction: true, ...qemuSubsystem,
  })
  const pm = new PlainFunction('piix4-pm', { vendor: 0x8086, device: 0x7113, classCode: bridgeClass.other, revision: 3, ...qemuSubsystem })
  pm.config.set(0x40, 4, pmBase | 1)
  pm.config.set(0x80, 1, 1) // PMREGMISC: I/O space enabled
  pm.config.allow(devactb, 4, devactbApmcEnable)
  const routes = [0x60, 0x61, 0x62, 0x63, 0x60, 0x61, 0x62, 0x63]
  return {
    functions: [{ id: bdf(0, 0, 0), fn: host }, { id: bdf(0, 1, 0), fn: isa }, { id: bdf(0, 1, 3), fn: pm }],
    irqOfWire: routing(isa.config, routes),
    smram: new SmramControl(host.config, 0x72),
    smiLocked: () => false,
    commandSmi: () => (pm.config.get(devactb, 4) & devactbApmcEnable) !== 0,
    pam: { config: host.config, register: 0x59 },
  }
}

function routing(config: ConfigSpace, offsets: readonly number[]): (wire: number) => number | undefined {
  offsets.forEach((offset, wire) => {
    config.allow(offset, 1, 0x8f)
    config.set(offset, 1, firmwareRoute[wire & 3])
  })
  return wire => {
    const route = config.get(offsets[wire], 1)
    return route & unrouted ? undefined : route
  }
}
