/** The DSDT: what software cannot find by itself - PCI root and its interrupt routing, processors, serial ports, clock, sleep states. */
import { sleepType, smiCommand } from '../../devices/acpi-pm/acpi-pm.ts'
import type { MemoryMap } from '../memory-map.ts'
import {
  addressWindow, type Aml, and, argument, buffer, createDwordField, device, eisaId, equal, fixedMemory, integer, ioPorts, isaInterrupt,
  method, name, namePath, or, otherwise, packageOf, resources, returns, scope, store, string, uuid, when,
} from './aml.ts'

export interface DsdtOptions {
  map: MemoryMap
  cpus: number
  /** Serial ports that exist: base port and IRQ. */
  serialPorts: readonly { base: number; irq: number }[]
  hpetBase: number | undefined
  /** Whether somebody has put files of his own into fw_cfg, for software to find. */
  hasFwCfg?: boolean
  /** Whether the machine can sleep (S3). */
  canSleep: boolean
  /** Interrupts of INTA to INTD (1 to 4) of a device: the IOAPIC's input, and the IRQ while the 8259s are in use. */
  gsiOf: (device: number, pin: number) => number
  irqOf: (device: number, pin: number) => number
}

export function dsdtBody(options: DsdtOptions): Uint8Array {
  const { map, canSleep } = options
  const sleepPackage = (type: number): Aml => packageOf([integer(type), integer(type), integer(0), integer(0)])
  return Uint8Array.from([
    name('PICF', integer(0)),
    method('_PIC', 1, [store(argument(0), namePath('PICF'))]),
    ...(canSleep ? [name('_S3', sleepPackage(sleepType.s3))] : []),
    name('_S5', sleepPackage(sleepType.s5)),
    scope('\\_SB', [
      ...Array.from({ length: options.cpus }, (_, index) => processor(index)),
      device('PCI0', [
        ...rootIdentity(map), name('_CRS', rootResources(map)), routing(options), ...(map.ecam ? [osc()] : []), isaBridge(options),
        ...(options.hasFwCfg ? [fwCfg()] : []),
      ]),
      motherboard(options),
      ...(options.hpetBase === undefined ? [] : [hpet(options.hpetBase)]),
    ]),
  ].flat())
}

/** `_UID` is the processor's number in the MADT. */
function processor(index: number): Aml {
  return device(`C${index.toString(16).toUpperCase().padStart(3, '0')}`, [name('_HID', string('ACPI0007')), name('_UID', integer(index))])
}

/** A PCI Express root where there is an enhanced configuration window, a conventional one otherwise. */
function rootIdentity(map: MemoryMap): Aml[] {
  const conventional = eisaId('PNP0A03')
  const identity = map.ecam ? [name('_HID', eisaId('PNP0A08')), name('_CID', conventional)] : [name('_HID', conventional)]
  return [...identity, name('_UID', integer(0)), name('_BBN', integer(0)), name('_SEG', integer(0))]
}

/** Bus numbers, the configuration ports that it uses itself, and what it passes on to the bus. */
function rootResources(map: MemoryMap): Aml {
  return resources([
    addressWindow(2, 'bus', 0, 256),
    ioPorts(0xcf8, 8),
    addressWindow(2, 'io', 0, 0xcf8),
    addressWindow(2, 'io', 0xd00, 0x10000 - 0xd00),
    addressWindow(4, 'memory', 0xa0000, 0x20000),
    addressWindow(4, 'memory', map.pciMemory32.base, map.pciMemory32.size),
    addressWindow(8, 'memory', map.pciMemory64.base, map.pciMemory64.size),
  ])
}

function routing({ gsiOf, irqOf }: DsdtOptions): Aml {
  const table = (interruptOf: (device: number, pin: number) => number): Aml => {
    const rows: Aml[] = []
    for (let slot = 0; slot < 32; slot++) {
      for (let pin = 1; pin <= 4; pin++) {
        rows.push(packageOf([integer(slot * 0x10000 + 0xffff), integer(pin - 1), integer(0), integer(interruptOf(slot, pin))]))
      }
    }
    return packageOf(rows)
  }
  return [
    ...name('PRTA', table(gsiOf)),
    ...name('PRTP', table(irqOf)),
    ...method('_PRT', 0, [when(namePath('PICF'), [returns(namePath('PRTA'))]), returns(namePath('PRTP'))]),
  ]
}

/** Lets software have power management events, error reporting and the PCI Express capability; there is no hot plug to be had. */
function osc(): Aml {
  const granted = 0x1c
  const unrecognizedUuid = 4
  return method('_OSC', 4, [
    createDwordField(argument(3), 0, 'CDW1'),
    when(equal(argument(0), buffer(uuid('33db4d5b-1ff7-401c-9657-7441c03dd766'))), [
      createDwordField(argument(3), 8, 'CDW3'),
      and(namePath('CDW3'), integer(granted), namePath('CDW3')),
    ]),
    otherwise([or(namePath('CDW1'), integer(unrecognizedUuid), namePath('CDW1'))]),
    returns(argument(3)),
  ])
}

function isaBridge({ map, serialPorts }: DsdtOptions): Aml {
  return device('ISA', [
    name('_ADR', integer(map.chipset === 'q35' ? 0x1f0000 : 0x10000)),
    device('RTC', [name('_HID', eisaId('PNP0B00')), name('_CRS', resources([ioPorts(0x70, 2), isaInterrupt(8)]))]),
    ...serialPorts.map(({ base, irq }, index) =>
      device(`COM${index + 1}`, [
        name('_HID', eisaId('PNP0501')), name('_UID', integer(index + 1)), name('_STA', integer(0xf)),
        name('_CRS', resources([ioPorts(base, 8), isaInterrupt(irq)])),
      ])),
  ])
}

/** QEMU documentation, "QEMU Firmware Configuration (fw_cfg) Device", ACPI Interface: present, decoding, functioning, not shown. */
function fwCfg(): Aml {
  return device('FWCF', [
    name('_HID', string('QEMU0002')), name('_STA', integer(0xb)), name('_CRS', resources([ioPorts(0x510, 0xc)])),
  ])
}

function hpet(base: number): Aml {
  return device('HPET', [name('_HID', eisaId('PNP0103')), name('_CRS', resources([fixedMemory(base, 0x400)]))])
}

/** What no other device claims, so that software does not put anything there. The PM block belongs to the LPC bridge. */
function motherboard({ map }: DsdtOptions): Aml {
  const ecam = map.ecam ? [fixedMemory(map.ecam.base, map.ecam.size)] : []
  return device('MBRD', [name('_HID', eisaId('PNP0C02')), name('_CRS', resources([ioPorts(smiCommand.port, 2), ...ecam]))])
}
