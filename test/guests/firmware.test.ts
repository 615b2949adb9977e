/** Debian's SeaBIOS, GRUB and memtest86+: a disk and a disc that boot from their first instruction; Linux by PVH and Xen by multiboot. */
import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { gunzipSync } from 'node:zlib'
import { MemoryStore } from '../../src/devices/testing/memory-store.ts'
import type { MachineOptions } from '../../src/api.ts'
import { createMachine } from '../../src/machine.ts'
import { grubDisc, grubDisk } from '../../tools/debian/grub.ts'
import { initramfs } from '../../tools/debian/initramfs.ts'
import { packageFolder } from '../../tools/debian/packages.ts'
import { unpackKernel } from '../../tools/debian/vmlinux.ts'
import { kernelFile } from './linux.ts'

const folder = mkdtempSync(join(tmpdir(), 'vitrine-firmware-'))
after(() => rmSync(folder, { recursive: true }))

const bios = (name = 'bios-256k.bin'): Uint8Array => readFileSync(join(packageFolder('seabios'), 'usr/share/seabios', name))
const memtest = (kind = 'x64'): Uint8Array => readFileSync(join(packageFolder('memtest86+'), `boot/memtest86+${kind}.bin`))
/** Memory has been found, and the first test is half through. */
const testing = /Memtest86\+ v[^]*50% #+[^]*#0 {2}\[Address test/

/** Runs until the serial port has shown the text, or the machine ends; what it showed, and how it ended. */
function show(options: MachineOptions, until: RegExp, most = 4e9): { text: string; end: string; screen: string } {
  const machine = createMachine({ engine: 'jit', chipset: 'q35', noReboot: true, bootSettings: { serialConsole: true }, ...options })
  let text = ''
  machine.onSerialOutput = bytes => { text += String.fromCharCode(...bytes) }
  for (;;) {
    const { kind } = machine.run({ maxInstructions: 10_000_000 })
    if (until.test(text) || kind !== 'budget' || machine.retired > most) {
      return { text, end: kind, screen: machine.screen()?.lines.join('\n') ?? '' }
    }
  }
}

test('SeaBIOS boots GRUB from a disk, and GRUB Debian, to userspace', () => {
  const image = join(folder, 'disk.img')
  const init = '#!/bin/sh\necho "@@ $(uname -sm) in userspace"\nmount -t proc proc /proc\ncat /proc/cmdline\npoweroff -f\n'
  grubDisk(image, {
    files: { 'boot/vmlinuz': readFileSync(kernelFile('cloud')), 'boot/initrd': initramfs({ init }) },
    menu: [{ title: 'Debian', commands: ['linux /boot/vmlinuz console=ttyS0 quiet from=disk', 'initrd /boot/initrd'] }],
  })
  const { text, end } = show({
    bios: bios(), memory: 256 << 20, drives: [{ id: 'disk', store: new MemoryStore(readFileSync(image)) }],
    devices: [{ name: 'virtio-blk-pci', properties: { drive: 'disk' } }],
  }, /never/)
  assert.match(text, /SeaBIOS \(version[^]*Booting from Hard Disk[^]*GRUB loading[^]*@@ Linux x86_64 in userspace/, text.slice(-2000))
  assert.match(text, /BOOT_IMAGE=\/boot\/vmlinuz console=ttyS0 quiet from=disk/)
  assert.equal(end, 'power-off')
})

test('SeaBIOS passes a disk without boot code over for a disc, whose GRUB starts memtest86+', () => {
  const image = join(folder, 'disc.iso')
  grubDisc(image, {
    files: { 'boot/memtest.bin': memtest() },
    menu: [{ title: 'Memtest', commands: ['linux /boot/memtest.bin console=ttyS0,115200'] }],
  })
  const { text, screen } = show({
    bios: bios(), vgaBios: bios('vgabios-stdvga.bin'), memory: 32 << 20, chipset: 'pc',
    drives: [{ id: 'empty', store: new MemoryStore(new Uint8Array(1 << 20)) }, { id: 'disc', store: new MemoryStore(readFileSync(image)) }],
    devices: [
      { name: 'ide-hd', properties: { drive: 'empty' } }, { name: 'ide-cd', properties: { drive: 'disc' } },
      { name: 'VGA', properties: {} },
    ],
  }, testing, 2e9)
  assert.match(text, /Boot failed: not a bootable disk[^]*Booting from DVD\/CD/, text.slice(-2000))
  assert.match(text, testing)
  assert.match(text.slice(-4000), /Errors: 0 /)
  assert.match(screen, /^ +Memtest86\+ v[^]*Memory  :   3\dMB[^]*Errors: 0/, 'the same on the VGA')
})

test('memtest86+ starts as a kernel, by the 64-bit and the 32-bit protocol', () => {
  for (const name of ['x64', 'ia32']) {
    const options = { kernel: memtest(name), memory: 16 << 20, commandLine: 'console=ttyS0,115200', bootSettings: undefined }
    const { text } = show(options, testing, 1e9)
    assert.match(text, testing, name)
    assert.match(text.slice(-4000), /Errors: 0 /, name)
  }
})

test('SeaBIOS finds SCSI disks and discs behind virtio: no boot code on one, GRUB and memtest86+ on the other', () => {
  const image = join(folder, 'scsi.iso')
  grubDisc(image, {
    files: { 'boot/memtest.bin': memtest() },
    menu: [{ title: 'Memtest', commands: ['linux /boot/memtest.bin console=ttyS0,115200'] }],
  })
  const { text } = show({
    bios: bios(), memory: 32 << 20,
    drives: [{ id: 'empty', store: new MemoryStore(new Uint8Array(1 << 20)) }, { id: 'disc', store: new MemoryStore(readFileSync(image)) }],
    devices: [
      { name: 'virtio-scsi-pci', properties: {} }, { name: 'scsi-hd', properties: { drive: 'empty' } },
      { name: 'scsi-cd', properties: { drive: 'disc', lun: '2' } },
    ],
  }, /Memtest86\+ v/, 1e9)
  assert.match(text, /Boot failed: not a bootable disk[^]*Booting from DVD\/CD[^]*Memtest86\+ v/, text.slice(-2000))
})

test('bootindex goes before the order of the buses', () => {
  const boot = (code: number): MemoryStore => {
    const image = new Uint8Array(1 << 20)
    image.set([0xb0, code, 0xe6, 0xf4]) // mov al, code; out 0xf4, al
    image.set([0x55, 0xaa], 510)
    return new MemoryStore(image)
  }
  const end = (first: string, second: string, third: string): unknown => {
    const machine = createMachine({
      bios: bios(), memory: 32 << 20, chipset: 'q35',
      drives: [{ id: 'a', store: boot(1) }, { id: 'b', store: boot(2) }, { id: 'c', store: boot(3) }, { id: 'd', store: boot(4) }],
      devices: [
        { name: 'isa-debug-exit', properties: { iobase: '0xf4' } },
        { name: 'virtio-blk-pci', properties: { drive: 'a' } },
        { name: 'ide-hd', properties: { drive: 'b', bootindex: first } },
        { name: 'virtio-blk-pci', properties: { drive: 'c', bootindex: second } },
        { name: 'virtio-scsi-pci', properties: { id: 's' } },
        { name: 'scsi-hd', properties: { drive: 'd', bus: 's.0', 'scsi-id': '17', bootindex: third } },
      ],
    })
    return machine.run({ maxInstructions: 1e8 })
  }
  assert.deepEqual(end('1', '2', '3'), { kind: 'debug-exit', status: 5 })
  assert.deepEqual(end('2', '1', '3'), { kind: 'debug-exit', status: 7 })
  assert.deepEqual(end('3', '2', '1'), { kind: 'debug-exit', status: 9 })
})

test('the ELF file in Debian\'s kernel boots by PVH, with an initial RAM disk and a command line', () => {
  const init = '#!/bin/sh\nmount -t proc proc /proc\necho "@@ $(cat /proc/cmdline)"\npoweroff -f\n'
  const { text, end } = show({
    kernel: unpackKernel(readFileSync(kernelFile('cloud'))), initrd: initramfs({ init }), commandLine: 'console=ttyS0 quiet by=pvh',
    memory: 256 << 20, bootSettings: undefined,
  }, /never/)
  assert.match(text, /^@@ console=ttyS0 quiet by=pvh/m, text.slice(-2000))
  assert.equal(end, 'power-off')
})

test('Xen starts by both versions of multiboot, real-mode calls included, and begins its first domain', () => {
  const files = packageFolder('xen-hypervisor-4.17-amd64')
  const name = readdirSync(join(files, 'boot')).find(file => file.endsWith('.gz'))!
  const xen = gunzipSync(readFileSync(join(files, 'boot', name)))
  const linux = readFileSync(kernelFile('cloud'))
  for (const protocol of ['multiboot', 'multiboot2'] as const) {
    const { text } = show({
      kernel: xen, kernelName: 'xen', protocol, commandLine: 'console=com1 com1=115200 dom0_mem=96M', memory: 256 << 20,
      modules: [{ name: 'vmlinuz', bytes: linux, arguments: 'console=hvc0' }], bootSettings: undefined,
    }, /Freed \d+kB init memory/, 1e9)
    assert.match(text, /Command line: console=com1 com1=115200 dom0_mem=96M\s/, text.slice(-2000))
    assert.match(text, /Dom0 kernel: 64-bit[^]*Freed \d+kB init memory/)
    assert.match(text, /Xen version 4\.17[^]*Bootloader: .*vitrine/i)
  }
})
