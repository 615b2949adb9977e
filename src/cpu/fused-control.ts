/**
 * What a fused multiply-add is told: the order of its operands (0 132, 1 213, 2 231), what is negated, and whether even elements (or odd
 * ones) are subtracted. Intel SDM vol. 1, "FMA Instruction Operand Order and Arithmetic Behavior".
 */
export const fusedControl = { order: 3, negateProduct: 4, subtract: 8, subtractEven: 16, subtractOdd: 32 } as const
