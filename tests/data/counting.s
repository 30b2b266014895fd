# A guest that counts on a disk: it writes one sector, with a number that grows, again and again by a virtio disk of PCI slot 5.
# as --32 counting.s -o counting.o && objcopy -O binary -j .text counting.o counting.bin; qemu_machine.py makes a BIOS of it.
.code16
.org 0
start:
  mov $0x1000,%ax
  mov %ax,%ds
  mov $0xcf8,%dx          # PCI slot 5: BAR 0 at 0xc000, then I/O and bus mastering on
  mov $0x80002810,%eax
  out %eax,%dx
  mov $0xcfc,%dx
  mov $0xc000,%eax
  out %eax,%dx
  mov $0xcf8,%dx
  mov $0x80002804,%eax
  out %eax,%dx
  mov $0xcfc,%dx
  mov $5,%ax
  out %ax,%dx
  mov $0xc012,%dx         # acknowledge, driver
  mov $3,%al
  out %al,%dx
  mov $0xc00e,%dx         # queue 0 at 0x10000
  xor %ax,%ax
  out %ax,%dx
  mov $0xc00c,%dx         # its size: the available ring lies at bx, the used ring at di
  in %dx,%ax
  mov %ax,%bx
  shl $4,%bx
  lea 4101(%bx),%di
  add %ax,%di
  add %ax,%di
  and $0xf000,%di
  mov $0xc008,%dx
  mov $0x10,%eax
  out %eax,%dx
  mov $0xc012,%dx         # driver ok
  mov $7,%al
  out %al,%dx
  movl $0x18000,0         # descriptors: head, data, status
  movl $16,8
  movl $0x10001,12
  movl $0x18200,16
  movl $512,24
  movl $0x20001,28
  movl $0x18100,32
  movl $1,40
  movl $2,44
  movb $1,0x8000          # write
  movb $1,0x8008          # sector 1
again:
  incl 0x8200
  incw 2(%bx)              # one more in the ring; all its entries are descriptor 0
  mov $0xc010,%dx
  xor %ax,%ax
  out %ax,%dx
wait:
  mov 2(%di),%ax
  cmp 2(%bx),%ax
  jne wait
  jmp again
