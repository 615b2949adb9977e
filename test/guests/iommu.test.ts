/** Debian's kernel with Intel's remapping unit: disks' DMA and all interrupts go through it; a device is given to a virtual machine. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { compile, initramfs, shellInit } from '../../tools/debian/initramfs.ts'
import { debianKernel, moduleFiles } from '../../tools/debian/packages.ts'
import { runCommand } from './linux.ts'

const folder = mkdtempSync(join(tmpdir(), 'vitrine-iommu-'))
after(() => rmSync(folder, { recursive: true }))

const digest = (data: Uint8Array): string => createHash('sha256').update(data).digest('hex')
const contents = Uint8Array.from({ length: 4 << 20 }, (_, i) => Math.imul(i ^ (i >>> 9), 0x9e3779b1) >>> 24)

/** Of the controller, of the function, and by the driver's going and coming: while it reads. */
const resets = [
  'd=/sys/bus/pci/devices/0000:00:03.0; read_all() { cat /dev/nvme0n1 >/dev/null 2>&1 & }',
  'read_all; echo 1 >/sys/class/nvme/nvme0/reset_controller; echo 3 >/proc/sys/vm/drop_caches; read_all; echo 1 >$d/reset',
  'read_all; echo 0000:00:03.0 >$d/driver/unbind; echo 0000:00:03.0 >/sys/bus/pci/drivers/nvme/bind; sleep 1',
]

for (const [mode, option] of [['legacy', 'sm_off'], ['scalable', 'sm_on']] as const) {
  test(`a virtio and an NVMe disk and interrupts through a unit in ${mode} mode`, () => {
    const kernel = debianKernel('cloud')
    const [read, written] = ['read', 'written'].map(name => join(folder, `${mode}-${name}`))
    writeFileSync(read, contents)
    writeFileSync(written, new Uint8Array(4 << 20))
    const typed = [
      'sha256sum /dev/vda', 'dd if=/dev/vda of=/dev/nvme0n1 bs=64k conv=fsync 2>/dev/null', 'cat /proc/interrupts',
      'ls /sys/kernel/iommu_groups | wc -l', ...resets, 'sha256sum /dev/nvme0n1',
      'echo complaints: $(dmesg | grep -ciE "DMAR.*(fault|error)|warning|bug:")',
      'dmesg | grep -i dmar', 'poweroff -f\n',
    ]
    const { console, status, errors } = runCommand([
      '--kernel', kernel.image, '--append', `console=ttyS0 intel_iommu=on,${option} iommu.strict=1`, '--memory', '256M', '--smp', '2',
      '--drive', `${read},readonly=on`, '--drive', `${written},if=nvme`, '--iommu', 'vtd',
    ], typed.join('\n'), initramfs({ init: shellInit, modules: moduleFiles(kernel, ['virtio_pci', 'virtio_blk']) }))
    assert.equal(status, 0, errors + console.slice(-2000))
    assert.ok(console.includes(`${digest(contents)}  /dev/vda`), console.slice(-4000))
    assert.equal(digest(readFileSync(written)), digest(contents))
    assert.ok(console.includes(`${digest(contents)}  /dev/nvme0n1`), console.slice(-4000))
    assert.match(console, /^complaints: 0$/m)
    assert.match(console, /DMAR-IR: Enabled IRQ remapping in x2apic mode/)
    assert.match(console, /IR-PCI-MSI.*virtio0-req/)
    assert.match(console, /IR-PCI-MSI.*nvme0q1/)
    assert.match(console, /IR-IO-APIC.*ttyS0/)
    assert.match(console, /DMAR: Intel\(R\) Virtualization Technology for Directed I\/O/)
  })
}

const assignInit = `#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev; mount -t debugfs debugfs /sys/kernel/debug
for module in $(cat /mod/order); do insmod /mod/$module; done
name=0000:00:02.0; device=/sys/bus/pci/devices/$name
echo vfio-pci >$device/driver_override; echo $name >/sys/bus/pci/drivers_probe
assign $name /dev/vfio/$(basename $(readlink $device/iommu_group))
dmesg | grep -i 'fault reason'
poweroff -f
`

test('a device is given to a virtual machine by VFIO: DMA stays in its domain, interrupts are posted', () => {
  const kernel = debianKernel('cloud')
  const program = compile(fileURLToPath(new URL('iommu/assign.c', import.meta.url)))
  const modules = moduleFiles(kernel, ['kvm_intel', 'vfio_iommu_type1', 'vfio_pci'])
  const { console, status, errors } = runCommand([
    '--kernel', kernel.image, '--append', 'console=ttyS0 quiet intel_iommu=on iommu.strict=1', '--memory', '256M', '--smp', '2',
    '--device', 'edu', '--iommu', 'vtd',
  ], '', initramfs({ init: assignInit, programs: [program], modules }))
  assert.equal(status, 0, errors + console.slice(-2000))
  assert.match(console, /^dma inside: same$/m)
  for (const word of ['Read', 'Write'])
    assert.match(console, new RegExp(`DMA ${word} NO_PASID\\] Request device \\[00:02.0\\] fault addr 0x900000`))
  assert.match(console, /^eventfd: 1$/m)
  // A vCPU that runs takes them without an exit; what exits there are come from the host's own timer.
  const [, exits = ''] = /^running: interrupts 100, exits (\d+),/m.exec(console) ?? []
  assert.ok(exits !== '' && Number(exits) < 50, console)
  assert.match(console, /^halting: interrupts 150, woken yes$/m)
  assert.match(console, /^by the host: 0$/m)
  assert.match(console, /^guest ended: exit 2$/m)
})
