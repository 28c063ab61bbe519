"""What the full-screen pages say: lines of spans from services, no widgets."""
