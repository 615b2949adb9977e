/** Debian's virtio, SCSI and NVMe drivers on our devices: what they read is what the image holds, what they write is found in the file. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { initramfs, shellInit } from '../../tools/debian/initramfs.ts'
import { debianKernel, moduleFiles } from '../../tools/debian/packages.ts'
import { busybox, runCommand } from './linux.ts'

const folder = mkdtempSync(join(tmpdir(), 'vitrine-disk-'))
after(() => rmSync(folder, { recursive: true }))

const digest = (data: Uint8Array): string => createHash('sha256').update(data).digest('hex')
const contents = Uint8Array.from({ length: 8 << 20 }, (_, i) => Math.imul(i ^ (i >>> 9), 0x9e3779b1) >>> 24)

const cases = [
  { interrupts: 'MSI-X', append: '', expected: [/PCI-MSI.*virtio0-req/, /PCI-MSI.*nvme0q1/, /PCI-MSI.*virtio\d-request/] },
  { interrupts: 'INTx', append: 'pci=nomsi', expected: [/IO-APIC.*virtio0/, /IO-APIC.*nvme0q0/] },
]

for (const { interrupts, append, expected } of cases) {
  test(`disks, random numbers and a console with ${interrupts}`, () => {
    const kernel = debianKernel('cloud')
    const [read, written, kept, solid, scsi] = ['read', 'written', 'kept', 'solid', 'scsi'].map(name => join(folder, name))
    for (const file of [read, kept, solid, scsi]) writeFileSync(file, contents)
    writeFileSync(written, new Uint8Array(8 << 20))
    const modules = moduleFiles(kernel, ['virtio_pci', 'virtio_blk', 'virtio_rng', 'virtio_console', 'virtio_scsi', 'sd_mod', 'sr_mod'])
    const typed = [
      'sha256sum /dev/vda', 'cat /sys/block/vda/serial', 'echo x 2>/dev/null >/dev/vda || echo it is read-only',
      'dd if=/bin/busybox of=/dev/vdb bs=1k seek=3 conv=fsync 2>/dev/null',
      'dd if=/dev/zero of=/dev/vdc bs=1M count=8 conv=fsync 2>/dev/null', 'echo 3 > /proc/sys/vm/drop_caches', 'sha256sum /dev/vdc',
      'sha256sum /dev/nvme0n1', 'dd if=/bin/busybox of=/dev/nvme0n1 bs=1k seek=5 conv=fsync 2>/dev/null',
      'sha256sum /dev/sda /dev/sr0', 'dd if=/bin/busybox of=/dev/sda bs=1k seek=7 conv=fsync 2>/dev/null', 'blkdiscard -o 4194304 /dev/sda',
      'cat /sys/block/sda/queue/write_cache /sys/block/sda/queue/fua', 'dmesg | grep "sd 0:"',
      'cat /sys/class/misc/hw_random/rng_current', 'dd if=/dev/hwrng bs=32 count=1 2>/dev/null | wc -c', 'echo from the console >/dev/hvc0',
      'cat /proc/interrupts', 'poweroff -f\n',
    ]
    const { console, status, errors } = runCommand([
      '--kernel', kernel.image, '--append', `console=ttyS0 ${append}`, '--memory', '256M', '--drive', `${read},readonly=on,serial=GLASS`,
      '--drive', written, '--drive', `${kept},snapshot=on`, '--drive', `${solid},if=nvme`,
      '--device', 'virtio-rng-pci', '--device', 'virtio-console-pci', '--device', 'virtio-scsi-pci',
      '--drive', `${scsi},if=none,id=s`, '--device', 'scsi-hd,drive=s', '--drive', `${read},if=none,id=r,media=cdrom`,
      '--device', 'scsi-cd,drive=r',
    ], typed.join('\n'), initramfs({ init: shellInit, modules }))
    assert.equal(status, 0, errors + console.slice(-2000))
    assert.ok(console.includes(`${digest(contents)}  /dev/vda`))
    assert.ok(console.includes(`${digest(new Uint8Array(8 << 20))}  /dev/vdc`))
    assert.ok(console.includes(`${digest(contents)}  /dev/nvme0n1`))
    assert.ok(console.includes(`${digest(contents)}  /dev/sda\n${digest(contents)}  /dev/sr0`))
    assert.match(console, /^write back\n1$/m)
    assert.match(console, /sd 0:0:0:0: \[sda\] 16384 512-byte logical blocks[^]*Write cache: enabled[^]*supports DPO and FUA/)
    assert.match(console, /^GLASS/m)
    assert.match(console, /^it is read-only$/m)
    assert.match(console, /^virtio_rng\.0\n[^]*^32$/m)
    assert.match(console, /^from the console$/m)
    for (const line of expected) assert.match(console, line)
    const program = busybox()
    const image = new Uint8Array(8 << 20)
    image.set(program, 3 << 10)
    assert.equal(digest(readFileSync(written)), digest(image))
    const solidImage = contents.slice()
    solidImage.set(program, 5 << 10)
    assert.equal(digest(readFileSync(solid)), digest(solidImage))
    const scsiImage = contents.slice()
    scsiImage.set(program, 7 << 10)
    assert.equal(digest(readFileSync(scsi).subarray(0, 4 << 20)), digest(scsiImage.subarray(0, 4 << 20)))
    assert.equal(digest(readFileSync(kept)), digest(contents))
  })
}
