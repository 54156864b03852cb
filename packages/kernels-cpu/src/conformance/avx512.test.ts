import { conformanceOn } from './suite.js';

conformanceOn('avx512', 2);
