/** Debian's kernel with Intel's remapping unit, in legacy and in scalable mode: the disk's DMA and all interrupts go through it. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { initramfs, shellInit } from '../../tools/debian/initramfs.ts'
import { debianKernel, moduleFiles } from '../../tools/debian/packages.ts'
import { runCommand } from './linux.ts'

const folder = mkdtempSync(join(tmpdir(), 'vitrine-iommu-'))
after(() => rmSync(folder, { recursive: true }))

const digest = (data: Uint8Array): string => createHash('sha256').update(data).digest('hex')
const contents = Uint8Array.from({ length: 4 << 20 }, (_, i) => Math.imul(i ^ (i >>> 9), 0x9e3779b1) >>> 24)

for (const [mode, option] of [['legacy', 'sm_off'], ['scalable', 'sm_on']] as const) {
  test(`a disk and interrupts through a unit in ${mode} mode`, () => {
    const kernel = debianKernel('cloud')
    const [read, written] = ['read', 'written'].map(name => join(folder, `${mode}-${name}`))
    writeFileSync(read, contents)
    writeFileSync(written, new Uint8Array(4 << 20))
    const typed = [
      'sha256sum /dev/vda', 'dd if=/dev/vda of=/dev/vdb bs=64k conv=fsync 2>/dev/null', 'cat /proc/interrupts',
      'ls /sys/kernel/iommu_groups | wc -l', 'echo complaints: $(dmesg | grep -ciE "DMAR.*(fault|error)|warning|bug:")',
      'dmesg | grep -i dmar', 'poweroff -f\n',
    ]
    const { console, status, errors } = runCommand([
      '--kernel', kernel.image, '--append', `console=ttyS0 intel_iommu=on,${option} iommu.strict=1`, '--memory', '256M', '--smp', '2',
      '--drive', `${read},readonly=on`, '--drive', written, '--iommu', 'vtd',
    ], typed.join('\n'), initramfs({ init: shellInit, modules: moduleFiles(kernel, ['virtio_pci', 'virtio_blk']) }))
    assert.equal(status, 0, errors + console.slice(-2000))
    assert.ok(console.includes(`${digest(contents)}  /dev/vda`), console.slice(-4000))
    assert.equal(digest(readFileSync(written)), digest(contents))
    assert.match(console, /^complaints: 0$/m)
    assert.match(console, /DMAR-IR: Enabled IRQ remapping in x2apic mode/)
    assert.match(console, /IR-PCI-MSI.*virtio0-req/)
    assert.match(console, /IR-IO-APIC.*ttyS0/)
    assert.match(console, /DMAR: Intel\(R\) Virtualization Technology for Directed I\/O/)
  })
}
