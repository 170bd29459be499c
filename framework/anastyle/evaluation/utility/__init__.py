"""What synthetic images are worth to another network: a classifier, or a segmenter, trained with and without them.

The paper's downstream table (Table 3, HAM10000) gives one number a system. Read alone it cannot say whether synthetic
images helped: a score also moves with the class mix, with the optimizer's steps and with chance. Here every arm takes
the same steps, every arm is trained with the same seeds, and beside synthetic images stands a control: as many
repeated real ones, of the same classes. A gain is the difference to that control, with its interval.
"""
